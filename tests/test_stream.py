"""The stream: bit-identical after a resume whatever the workers, no sample lost or repeated whatever the ranks."""

from collections import Counter
from functools import partial

import pytest
import torch

from data.errors import UserError
from data.pack import collate
from data.schedule import Schedule
from data.source import Records
from data.stream import Feed, Steps, loader
from data.types import Batch, Example, Span

SEED = 11
SIZES = {"short": 150, "middle": 210, "long": 70}  # records of each task
BATCH = {"short": 12, "middle": 20, "long": 4}
SHARES = [3.0, 2.0, 1.0]


def rows(name: str) -> list[dict]:
    return [{"id": f"{name}/{i}", "n": 1 + (i * 7) % 5, "value": float(i)} for i in range(SIZES[name])]


def example(record: dict, rng: torch.Generator | None) -> Example:
    n = record["n"]
    noise = torch.rand(n, 3, generator=rng) if rng is not None else torch.zeros(n, 3)
    span = Span("x", {"x": record["value"] + noise}, n).ask([n - 1], torch.tensor([n]))
    return Example([span], record=record["id"])


def steps(rank: int = 0, world: int = 1, accumulate: int = 1, mixed: bool = False) -> Steps:
    feeds = {
        name: Feed(Records(rows(name)), example, partial(collate, name, candidates=name), BATCH[name]) for name in SIZES
    }
    return Steps(feeds, Schedule(list(SIZES), SHARES, SEED, mixed), SEED, rank, world, accumulate)


def content(batch: Batch) -> list:
    """Everything in a batch, as comparable values."""
    found: list = [batch.task, batch.records, batch.inputs.layout.groups]
    batch.inputs.map(lambda t: found.append((tuple(t.shape), str(t.dtype), t.numpy().tobytes())) or t)
    return found


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_next_200_batches_after_a_resume_are_bit_identical(workers):
    """Stopped after step 37, resumed in a new process's stead, with any number of loader workers."""
    uninterrupted = [content(b) for b in loader(steps(), 0, 237, workers=0)][37:]
    resumed = [content(b) for b in loader(steps(), 37, 237, workers=workers)]
    assert len(resumed) == 200
    assert resumed == uninterrupted


def test_a_resume_within_accumulated_steps_is_bit_identical():
    uninterrupted = [content(b) for b in loader(steps(accumulate=2), 0, 30)]
    assert [content(b) for b in loader(steps(accumulate=2), 11, 30, workers=1)] == uninterrupted[22:]


def stretch(world: int, accumulate: int, first: int, last: int) -> list[list[str]]:
    """The records of each step over all ranks and micro steps, in stream order."""
    parts = [steps(rank, world, accumulate) for rank in range(world)]
    return [
        [r for micro in range(accumulate) for p in parts for r in p[step * accumulate + micro].records]
        for step in range(first, last)
    ]


@pytest.mark.parametrize("world, accumulate", [(1, 1), (4, 1), (2, 2), (1, 4)])
def test_two_ranks_that_become_one_or_four_read_the_same_samples_at_every_step(world, accumulate):
    assert stretch(world, accumulate, 0, 40) == stretch(2, 1, 0, 40)


@pytest.mark.parametrize("worlds", [(2, 1), (2, 4), (1, 2), (4, 2)])
def test_an_epoch_loses_and_repeats_nothing_when_the_number_of_ranks_changes_midway(worlds):
    schedule = Schedule(list(SIZES), SHARES, SEED)
    for name, n in SIZES.items():
        last = next(s for s in range(10_000) if schedule.draws_before(s, name) * BATCH[name] >= n)
        seen = stretch(worlds[0], 1, 0, last // 2) + stretch(worlds[1], 1, last // 2, last)
        own = [r for step in seen for r in step if r.startswith(name + "/")]
        epoch = Counter(own[:n])
        assert len(epoch) == n, f"{n - len(epoch)} of {n} samples of {name} lost"
        assert set(epoch.values()) == {1}, f"samples of {name} repeated"


def test_two_epochs_have_the_same_samples_in_different_orders():
    reader = steps()
    schedule = reader.schedule
    own = [r for s in range(260) if schedule.task_at(s) == "long" for r in reader[s].records]
    assert len(own) >= 140
    assert sorted(own[:70]) == sorted(own[70:140])
    assert own[:70] != own[70:140]
    assert own[:70] != sorted(own[:70])


def test_mixed_sampling_lets_ranks_differ_and_no_two_read_the_same_sample():
    parts = [steps(rank, 2, mixed=True) for rank in range(2)]
    batches = [[p[s] for s in range(12)] for p in parts]
    assert [b.task for b in batches[0]] != [b.task for b in batches[1]]
    seen = Counter(r for stream in batches for b in stream for r in b.records)
    assert set(seen.values()) == {1}


def test_a_broken_sample_stops_the_run_and_is_named():
    feed = steps().feeds["short"]

    def fails(record, rng):
        if record["id"] == "short/7":
            raise UserError("the picture is cut off")
        return example(record, rng)

    broken = Feed(feed.records, fails, feed.collate, 10)
    reader = Steps({"short": broken}, Schedule(["short"], [1.0], SEED), SEED)
    with pytest.raises(UserError, match=r"short/7.*cut off"):
        [reader[s] for s in range(15)]


def test_a_batch_that_the_ranks_cannot_share_is_refused_with_the_nearest_size_that_works():
    with pytest.raises(UserError, match="use 10"):
        steps(world=5)
    with pytest.raises(UserError, match="empty"):
        Steps({"a": Feed(Records([]), example, lambda e: None, 1)}, Schedule(["a"], [1.0]), 0)
