"""Packed tokens in, packed tokens out: the shared encoder; it knows no modality, task or file."""
