"""What an encoder is made of besides blocks: steps that change the tokens, a file each, and their table."""

from typing import Any

from generalist.data.base.moved import old_name


def __getattr__(name: str) -> Any:  # what the module that stood here before the room could be asked for
    return old_name(__name__, name)
