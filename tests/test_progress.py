"""Progress on a terminal is one moving line, elsewhere a plain line now and then."""

import io
import sys
import time

import pytest

from generalist.machine import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream, monkeypatch, seconds: float) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "SECONDS", seconds)
    with progress.progress(total=40, unit="step") as bar:
        for _ in range(40):
            time.sleep(0.005)
            bar.update()
    return stream.getvalue()


def test_without_a_terminal_there_are_lines_and_no_carriage_returns(monkeypatch):
    text = shown(io.StringIO(), monkeypatch, 0.05)
    assert "\r" not in text and "40/40" in text.splitlines()[-1]
    assert 2 <= len(text.splitlines()) < 20  # now and then, not every step


def test_a_short_wait_says_nothing_without_a_terminal(monkeypatch):
    assert shown(io.StringIO(), monkeypatch, 30.0) == ""


def test_a_terminal_shows_one_moving_line(monkeypatch):
    text = shown(Terminal(), monkeypatch, 30.0)
    assert "\r" in text and "40/40" in text


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_quiet_is_quiet(stream, monkeypatch):
    out = stream()
    monkeypatch.setattr(sys, "stderr", out)
    with progress.progress(quiet=True, total=3) as bar:
        bar.update(3)
    assert out.getvalue() == ""
