"""The originals of converted models, run beside them: `compare(checkpoint, options, model, processor)` a file."""
