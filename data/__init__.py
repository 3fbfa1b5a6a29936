"""Travelling types, sources, schedule, collate and the resumable stream (leftmost room: imports no other)."""

if __name__ == "data":  # an old import in a checkout: nothing of generalist.data is loaded twice (data/base/moved.py)
    __path__.clear()
