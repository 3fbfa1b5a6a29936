"""Tasks about objects in pictures: boxes and masks."""
