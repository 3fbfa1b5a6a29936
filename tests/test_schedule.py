"""The schedule is a pure function of seed and step that follows the shares closely."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.data.base.errors import UserError
from generalist.data.stream.schedule import BLOCK, Schedule

NAMES, SHARES = ["a", "b", "c"], [5.0, 3.0, 2.0]


def tasks(schedule: Schedule, steps: int, rank: int = 0) -> list[str]:
    return [schedule.task_at(step, rank) for step in range(steps)]


def test_asking_in_any_order_or_anew_gives_the_same_task():
    forward = tasks(Schedule(NAMES, SHARES, seed=3), 5 * BLOCK)
    fresh = Schedule(NAMES, SHARES, seed=3)
    for step in np.random.default_rng(0).permutation(5 * BLOCK).tolist():
        assert fresh.task_at(step) == forward[step]


def test_another_seed_gives_another_order():
    assert tasks(Schedule(NAMES, SHARES, seed=0), 200) != tasks(Schedule(NAMES, SHARES, seed=1), 200)


@given(shares=st.lists(st.floats(0.05, 20), min_size=1, max_size=7), seed=st.integers(0, 2**63 - 1))
@settings(max_examples=40, deadline=None)
def test_every_block_follows_the_shares_within_one_draw_of_each_edge(shares, seed):
    names = [f"t{i}" for i in range(len(shares))]
    schedule = Schedule(names, shares, seed)
    for block in range(3):
        counts = Counter(schedule.task_at(block * BLOCK + i) for i in range(BLOCK))
        for name in names:
            # one draw from each of BLOCK equal strata: a task loses or gains at most one at each of its two edges
            assert abs(counts[name] - BLOCK * schedule.share(name)) < 2
    assert sum(schedule.share(name) for name in names) == pytest.approx(1)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("rank", [0, 2])
def test_draws_before_a_step_equal_counting_them(mixed, rank):
    schedule = Schedule(NAMES, SHARES, seed=5, mixed=mixed)
    drawn = tasks(Schedule(NAMES, SHARES, seed=5, mixed=mixed), 4 * BLOCK, rank)
    for step in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7, 2 * BLOCK):  # not in order: no hidden state
        for name in NAMES:
            assert schedule.draws_before(step, name, rank) == drawn[:step].count(name)


def test_unmixed_sampling_gives_all_ranks_one_task_and_mixed_sampling_does_not():
    unmixed, mixed = Schedule(NAMES, SHARES), Schedule(NAMES, SHARES, mixed=True)
    assert tasks(unmixed, 3 * BLOCK, 0) == tasks(unmixed, 3 * BLOCK, 5)
    assert tasks(mixed, 3 * BLOCK, 0) == tasks(unmixed, 3 * BLOCK, 0)
    differing = sum(a != b for a, b in zip(tasks(mixed, 3 * BLOCK, 0), tasks(mixed, 3 * BLOCK, 5), strict=True))
    assert differing > BLOCK  # two independent draws of these shares differ in 62 of 100 steps


@pytest.mark.parametrize(
    "names, shares, message",
    [
        ([], [], "needs at least one task"),
        (["a", "a"], [1, 1], "share a name"),
        (["a", "b"], [1, 0], "must be positive"),
        (["a", "b"], [1, -2], "must be positive"),
        (["a", "b"], [1, float("nan")], "must be positive"),
        (["a", "b"], [1, float("inf")], "must be positive"),
    ],
)
def test_shares_that_make_no_sense_are_refused(names, shares, message):
    with pytest.raises(UserError, match=message):
        Schedule(names, shares)
