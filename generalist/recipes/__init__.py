"""Recipes: one Python function a run; each header states the command, the time and the numbers to expect."""
