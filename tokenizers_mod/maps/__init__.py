"""Operators on maps, forward(x: Float[G H W D], real: Bool[G H W] or None) -> the same shape; they know no packing."""
