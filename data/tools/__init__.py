"""Data sets looked at and written: shards, validation, near duplicates, statistics."""
