"""Pictures of every kind and films."""
