"""Your own data in one command: what is in it, the task, sizes and steps decided, written as a recipe and trained."""
