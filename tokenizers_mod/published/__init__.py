"""Tokenizers of published systems, equal to the originals."""
