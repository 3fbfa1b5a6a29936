"""Travelling types, sources, schedule, collate and the resumable stream (leftmost room: imports no other)."""
