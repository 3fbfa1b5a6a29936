"""The limits are settings, and the page that documents them says what they are."""

import re
from dataclasses import asdict

import pytest
from conftest import ROOT

from generalist.data.base.errors import UserError
from generalist.data.base.limits import Limits, limits, over


def test_the_page_on_security_lists_every_limit_with_its_default():
    page = (ROOT / ".github/SECURITY.md").read_text(encoding="utf-8").partition("## Limits")[2]
    assert {name: int(value) for name, value in re.findall(r"^\| `(\w+)` \| (\d+) \|", page, flags=re.M)} == asdict(
        Limits()
    )


def test_the_environment_changes_those_it_names(monkeypatch):
    monkeypatch.setenv("GENERALIST_LIMITS", "picture_mb=7, json_depth=3")
    assert (limits().picture_mb, limits().json_depth, limits().horizon) == (7, 3, Limits().horizon)
    assert str(over("a.png", "picture_mb", "9 MB decoded")) == (
        "a.png: 9 MB decoded, over the limit of 7 MB; mend it or set GENERALIST_LIMITS=picture_mb=..."
    )
    for words, told in (("pictures_mb=7", "did you mean 'picture_mb'"), ("json_depth=-1", "at least 1")):
        monkeypatch.setenv("GENERALIST_LIMITS", words)
        with pytest.raises(UserError, match=told):
            limits()
