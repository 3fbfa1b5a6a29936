"""One file a task; `likelihood.py` holds the one law; metrics are mergeable (sum, count)."""
