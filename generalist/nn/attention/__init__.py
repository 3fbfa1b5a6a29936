"""Attention over packed and padded sequences: kernels, positions, keys and values kept."""
