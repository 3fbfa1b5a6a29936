"""One file a task; `likelihood.py` holds the one law; metrics are mergeable (sum, count)."""

if __name__ == "tasks":  # an old import in a checkout: nothing of generalist.tasks is loaded twice (data/base/moved.py)
    __path__.clear()
