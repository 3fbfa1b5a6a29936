"""The travelling types: spans, examples, packed batches, and how they are shipped between processes."""
