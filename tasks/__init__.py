"""What a task is, the kinds of tasks, and the one law that is the same for all (candidates/likelihood.py)."""

if __name__ == "tasks":  # an old import in a checkout: nothing of generalist.tasks is loaded twice (data/base/moved.py)
    __path__.clear()
