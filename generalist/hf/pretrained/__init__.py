"""transformers' base classes around the plain configuration and the plain model."""
