"""Commands that keep a model or an index at hand."""
