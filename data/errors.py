"""The user's mistakes end in one line that says what and how to mend it."""


class UserError(ValueError):
    """A mistake of the user's: printed as one line, exit code 2, no traceback without --debug."""


def nearest(word: str, valid) -> str:
    """A ' (did you mean X?)' for a misspelt `word`, or the list of valid words."""
    import difflib

    valid = [str(v) for v in valid]
    close = difflib.get_close_matches(str(word), valid, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(valid[:12]) + (" ..." if len(valid) > 12 else "")
    return f"known: {shown}" if valid else "none are known"
