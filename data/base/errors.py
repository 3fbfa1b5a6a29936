"""The user's mistakes end in one line that says what and how to mend it."""

from __future__ import annotations

import re
from typing import Any


class UserError(ValueError):
    """A mistake of the user's: printed as one line, exit code 2, no traceback without --debug."""


class Mismatch(UserError):
    """What was asked for and what a record says do not fit, such as a class that is no candidate."""


LONGEST = 290  # characters of a line about one sample


def one_line(error: BaseException | str) -> str:
    """What an error says in one line of bounded length, without values of arrays; where it says nothing, its kind."""
    words = " ".join(str(error).split())
    words = re.sub(r"\b(array|tensor)\([^()]*[\])]", r"an \1", words)
    if not words:
        words = type(error).__name__
    return words if len(words) <= LONGEST else f"{words[: LONGEST // 2 - 3]} ... {words[3 - LONGEST // 2 :]}"


def told(value: Any, most: int = 60) -> str:
    """A value that a person gave, named in an error: short, and of an array its shape and type alone."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return f"{type(value).__name__} of shape {tuple(shape)}"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return f"a whole number of {value.bit_length()} bits"
    if isinstance(value, (str, bytes)):
        return repr(value[:most]) + ("..." if len(value) > most else "")
    if isinstance(value, (bool, int, float, complex)) or value is None:
        return repr(value)
    return f"a {type(value).__name__}"


def blame(error: Exception, what: str) -> UserError:
    """Whatever went wrong with the sample or field called `what`, as one line; a UserError's own, where it is short."""
    if isinstance(error, UserError):
        line = one_line(error)
        return error if line == str(error) else UserError(line)
    return UserError(one_line(f"{what}: cannot be read ({type(error).__name__}: {error})"))


class Unfinished(UserError):
    """A split that is there but was not written to its end: never passed over as one that does not exist."""


def nearest(word: str, valid) -> str:
    """A ' (did you mean X?)' for a misspelt `word`, or the list of valid words."""
    import difflib

    valid = [str(v) for v in valid]
    close = difflib.get_close_matches(str(word), valid, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(valid[:12]) + (" ..." if len(valid) > 12 else "")
    return f"known: {shown}" if valid else "none are known"
