"""What a value of another library is, said by its class's name, so that the library need not be imported."""

from __future__ import annotations

from typing import Any


def is_a(value: Any, name: str) -> bool:
    """Whether a class of this full name is among those of the value: is_a(x, "torch.Tensor")."""
    return any(f"{kind.__module__}.{kind.__qualname__}" == name for kind in type(value).__mro__)


def is_picture(value: Any) -> bool:
    """Whether it is a picture of Pillow's, of whatever file."""
    return is_a(value, "PIL.Image.Image")


def is_tensor(value: Any) -> bool:
    return is_a(value, "torch.Tensor")


def acts_as(value: Any, *names: str) -> bool:
    """Whether it has all of these methods or fields: frames and series of pandas, polars and their kin have no common
    class."""
    return all(hasattr(value, name) for name in names)


def file_of(value: Any) -> bytes | None:
    """The bytes of the file that a picture of ours was decoded from; None of other values."""
    return getattr(value, "encoded", None)
