"""`generalist check mixer`: every mixer of the tables, and settings that are another computation, pass the kit."""

from functools import cache

import pytest

from generalist.commands.check.lines import lines_of
from generalist.commands.check.mixer import CHECKS, LONG
from generalist.commands.check.mixer_model import Subject
from generalist.nn.mixers.table import CHANNEL_MIXERS, TOKEN_MIXERS

# beside the tables' names: settings that are another computation
MORE = {
    "attention local": {"kind": "attention", "local": 3},
    "attention local shared": {"kind": "attention", "local": 3, "local_shared": True, "head_dim": 10},
    "decay_axes whole": {"kind": "decay_axes", "axes": False},
    "retention softmax": {"kind": "retention", "normalise": "softmax"},
    "retention chunks": {"kind": "retention", "chunk": 3},
    "hyena product": {"kind": "hyena", "filter": "product", "window": "learn", "direction": "seq", "order": 3},
    "hyena 4dir": {"kind": "hyena", "direction": "4dir", "window": "symmetric"},
    "hyena direct": {"kind": "hyena", "filter": "direct", "size": 3, "direction": "parallel"},
    "window cross": {"kind": "window", "style": "cross", "size": 2, "odd": True},
    "window shifted": {"kind": "window", "size": 3, "odd": True},
    "strip reduced": {"kind": "strip", "reduce": 2, "strip": 2},
    "minimal shared": {"kind": "minimal_attention", "qk": "shared", "vo": "none"},
}
TOKENS = [*TOKEN_MIXERS, *MORE]
CHANNELS = list(CHANNEL_MIXERS)


@cache
def subject(name):
    kind = MORE.get(name, {"kind": name})
    return Subject(kind["kind"], {key: value for key, value in kind.items() if key != "kind"})


@pytest.mark.parametrize("name", [*TOKENS, *CHANNELS])
def test_a_mixer_passes_every_quick_check(name):
    lines = list(lines_of({check: run for check, run in CHECKS.items() if check not in LONG}, subject(name)))
    assert len(lines) == 9
    assert not [str(line) for line in lines if not line.passed]
    left = {line.check for line in lines if line.outcome == "left out"}
    assert left <= {"sizes of maps"} | ({"gradients"} if name.startswith("expert") else set())


QUICK = ("pool", "retention")  # of two families; all in `make soak`


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.soak) for name in (*TOKENS, *CHANNELS)]
)
def test_a_mixer_is_exported(name):
    _passes(name, "torch.export")


@pytest.mark.soak  # a quarter of a minute each: the compiler
@pytest.mark.parametrize("name", [*TOKENS, *CHANNELS])
def test_a_mixer_is_compiled_and_planned(name):
    _passes(name, "torch.compile", "plan")


def _passes(name, *checks):
    lines = list(lines_of({check: CHECKS[check] for check in checks}, subject(name)))
    assert not [str(line) for line in lines if not line.passed]
    assert all(line.outcome == "ok" for line in lines) or name.startswith("expert")
