"""How many broken samples end a run: a share of those there are, and of few at least a few."""

import pytest

from generalist.data.base.errors import UserError
from generalist.train.faults import Faults, too_many
from tests.test_faults import result
from tests.tiny import tiny


def test_a_small_set_of_which_many_are_broken_stops_once_all_of_it_was_seen(tmp_path):
    """Four of thirty are fewer than the grace of large sets; one of five alone is an accident, and told as such."""
    held = Faults(tmp_path / "a", tiny(), 0, 0, [], set(), {"wine": 30})
    (tmp_path / "a").mkdir()
    for step in range(2):
        held.after(result(step, 0.5, unread=2, fresh=2, bad=(f"task wine, record {step}: cut off",)))
    with pytest.raises(UserError, match=r"4 of 30 samples cannot be decoded.*record 0: cut off"):
        for step in range(2, 5):
            held.after(result(step, 0.5))
    held = Faults(tmp_path / "a", tiny(), 0, 0, [], set(), {"wine": 5})
    for step in range(20):
        held.after(result(step, 0.5, unread=1, fresh=int(step == 0)))


@pytest.mark.parametrize(
    "broken, seen, whole, over",
    [
        (1, 5, True, False),
        (2, 5, True, True),
        (6, 60, True, False),
        (7, 60, True, True),
        (7, 60, False, False),
        (20, 1000, True, False),
        (21, 1000, True, True),
        (100, 10_000, True, False),
        (101, 10_000, True, True),
    ],
)
def test_how_many_broken_samples_are_too_many(broken, seen, whole, over):
    assert too_many(broken, seen, 0.01, whole) is over
