"""Thin entry points: launchers, evaluations, shard making and benchmarks (rightmost room: nothing imports it)."""
