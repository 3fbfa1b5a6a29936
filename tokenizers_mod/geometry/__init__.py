"""Point clouds and graphs."""
