"""The training loop, what it needs before its first step and what it keeps."""
