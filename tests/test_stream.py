"""The stream: bit-identical after a resume whatever the workers, no sample lost or repeated whatever the ranks."""

from collections import Counter
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import collate
from generalist.data.batch.types import Batch, Example, Span
from generalist.data.stream.order import ShardOrder
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.source import Records
from generalist.data.stream.stream import Feed, Steps, loader

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


def broken_steps(names: set[str], corrupt: str = "skip", **options) -> Steps:
    feed = steps().feeds["short"]

    def fails(record, rng):
        if record["id"] in names:
            raise UserError("cut off")
        return example(record, rng)

    return Steps(
        {"short": Feed(feed.records, fails, feed.collate, 10)},
        Schedule(["short"], [1.0], SEED),
        SEED,
        corrupt=corrupt,
        **options,
    )


def test_broken_samples_that_may_be_skipped_are_named_and_replaced_the_same_way_on_every_resume_and_rank_count():
    names = {"short/7", "short/8", "short/99"}
    batches = [broken_steps(names)[s] for s in range(15)]
    skipped = [line for b in batches for line in b.skipped]
    assert len(skipped) >= 3
    assert {line.split(":")[0].split()[-1] for line in skipped} == names
    seen = Counter(r for b in batches for r in b.records)
    assert not names & set(seen) and sum(seen.values()) == 150
    assert set(seen) | names == {f"short/{i}" for i in range(150)}
    again = list(loader(broken_steps(names), 4, 15, workers=1))
    assert [content(b) for b in again] == [content(b) for b in batches[4:]]
    assert [b.skipped for b in again] == [b.skipped for b in batches[4:]]
    halves = [broken_steps(names, rank=r, world=2) for r in range(2)]
    assert [r for h in halves for r in h[3].records] == batches[3].records


def test_when_every_sample_is_broken_the_run_stops_even_if_single_ones_may_be_skipped():
    with pytest.raises(UserError, match="16 samples in a row"):
        broken_steps({f"short/{i}" for i in range(150)})[0]
    with pytest.raises(UserError, match="corrupt='skipp'; did you mean 'skip'"):
        broken_steps(set(), corrupt="skipp")


# --- shards ---


def order_of(order: ShardOrder, epoch: int, batch: int) -> list[int]:
    n = sum(order.sizes)
    return order.at(SEED, "t", epoch * n, n, batch)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(1, 17),
    st.integers(0, 3),
)
def test_every_epoch_of_shards_holds_every_sample_once(sizes, window, lanes, batch, epoch):
    order = ShardOrder(tuple(sizes), window, lanes)
    assert sorted(order_of(order, epoch, batch)) == list(range(sum(sizes)))


def test_shards_are_shuffled_and_samples_mix_within_windows_only():
    order = ShardOrder((20,) * 12, window=3)
    first, second = order_of(order, 0, 8), order_of(order, 1, 8)
    assert first != second
    for at in range(0, 240, 60):
        shards = {number // 20 for number in first[at : at + 60]}
        assert len(shards) == 3, "a window of three shards reads three shards"
    assert first[:20] != sorted(first[:20])
    assert {n // 20 for n in first[:60]} != {0, 1, 2} or {n // 20 for n in first[60:120]} != {3, 4, 5}


@pytest.mark.parametrize("world, accumulate", [(2, 1), (4, 1), (2, 2)])
def test_ranks_read_different_shards_and_every_shard_is_read_by_one_rank(world, accumulate):
    order = ShardOrder((30,) * 16, window=2, lanes=4)
    batch, n = 8, 480
    own = batch // (world * accumulate)
    readers: dict[int, set[int]] = {}
    for step in range(n // batch):
        for part in range(world * accumulate):
            for number in order.at(SEED, "t", step * batch + part * own, own, batch):
                readers.setdefault(number // 30, set()).add(part)
    assert len(readers) == 16
    assert all(len(found) == 1 for found in readers.values())
