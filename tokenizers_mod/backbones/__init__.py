"""Published hierarchical networks of our own operators on maps, behind transformers' backbone API."""
