"""The one table of tasks, and a task out of a model's folder."""
