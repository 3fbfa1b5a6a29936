"""A smaller copy of a saved model, measured beside it."""
