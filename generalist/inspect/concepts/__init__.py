"""Concepts: sparse features of every layer's tokens, what they say of strange inputs and of wrong answers."""
