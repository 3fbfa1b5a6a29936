"""A saved model behind HTTP: requests read side by side, answered together in packed batches."""
