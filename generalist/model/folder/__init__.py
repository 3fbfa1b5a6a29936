"""A model's folder read as plain classes, and weights that it holds smaller or only names."""
