"""Numbers in order: single values, series, forecast slots, inertial signals."""
