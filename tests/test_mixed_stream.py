"""Five modalities in shards, near and far, read by any number of processes: nothing differs, nothing is padding."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from test_shards import Server
from test_stream import content

from generalist.data.sources.shards import Shards
from generalist.data.stream.stream import Steps, loader
from generalist.recipe.recipe import Recipe
from generalist.scripts import mixed_stream
from generalist.scripts.bench_stream import bucketed, padding, steps_of, wasted
from generalist.train.prepare import Prepared

SAMPLES, PER, BATCH = 45, 7, 4
STOP, NEXT = 37, 200
PLACES = ["local", "http", "pipe"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    found = tmp_path_factory.mktemp("mixed")
    mixed_stream.write(found, SAMPLES, PER)
    return found


@pytest.fixture(scope="module")
def server(folder):
    made = Server(folder)
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(params=PLACES)
def run(request, folder, server, tmp_path) -> tuple[Recipe, Prepared]:
    """The same shards on a local disk, behind a server, and as the output of a command."""
    shards = -(-SAMPLES // PER)
    kept = {"window": 2, "lanes": 4, "cache": str(tmp_path / "cache"), "classes": mixed_stream.CLASSES}
    tars = "{000000..%06d}.tar" % (shards - 1)  # noqa: UP031  # braces that are meant
    sources = {
        "local": lambda kind: Shards(str(folder / kind), **kept),
        "http": lambda kind: Shards(f"{server.address}/{kind}", **kept),
        "pipe": lambda kind: Shards(splits={"train": f"pipe:cat {folder}/{kind}/train/{tars}"}, **kept),
    }
    return mixed_stream.opened({kind: sources[request.param](kind) for kind in mixed_stream.KINDS}, BATCH)


@pytest.fixture(scope="module")
def uninterrupted(folder) -> list:
    """What one process reads from the local disk, from the first step on."""
    sources = {kind: Shards(str(folder / kind), window=2, lanes=4) for kind in mixed_stream.KINDS}
    steps = steps_of(*mixed_stream.opened(sources, BATCH))
    return [content(batch) for batch in loader(steps, 0, STOP + NEXT)]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_next_200_batches_are_bit_identical_wherever_the_shards_lie_and_whoever_reads(run, uninterrupted, workers):
    resumed = [content(batch) for batch in loader(steps_of(*run), STOP, STOP + NEXT, workers)]
    assert len(resumed) == NEXT
    assert resumed == uninterrupted[STOP:]
    assert {batch[0] for batch in resumed} == set(mixed_stream.KINDS)


def records(parts: list[Steps], step: int) -> list[str]:
    """What all ranks together read at a step."""
    return [record for part in parts for record in part[step].records]


def test_two_ranks_that_become_one_and_then_four_lose_and_repeat_nothing(run, uninterrupted):
    recipe, prepared = run
    seen = []
    for world, first, last in ((2, 0, 50), (1, 50, 90), (4, 90, 140)):
        parts = [steps_of(recipe, prepared, rank, world) for rank in range(world)]
        seen += [records(parts, step) for step in range(first, last)]
    assert seen == [batch[1] for batch in uninterrupted[:140]]
    for kind in mixed_stream.KINDS:
        own = [r for step in seen for r in step if r.startswith(kind)]
        epochs = len(own) // SAMPLES
        assert epochs >= 2
        counts = Counter(own[: epochs * SAMPLES])
        assert set(counts.values()) == {epochs}
        assert len(counts) == SAMPLES


def test_of_a_mixed_stream_at_most_two_percent_is_padding(folder):
    """Tokens counted on the samples' spans before packing, rows counted where they enter the encoder."""
    recipe, prepared = mixed_stream.opened(mixed_stream.local(folder), BATCH)
    feeds = prepared.feeds()
    lines = {line["what"]: line for line in padding(recipe, prepared, 40, workers=1)}
    real = Counter()
    steps = steps_of(recipe, prepared)
    for step in range(40):
        task = steps.schedule.task_at(step)
        start = steps.schedule.draws_before(step, task) * BATCH
        for offset, number in enumerate(steps._numbers(task, start, BATCH)):
            rng = torch.Generator().manual_seed((recipe.seed * 1_000_003 + start + offset) % 2**63)
            spans = feeds[task].example(feeds[task].records[number], rng).inputs
            real[task] += sum(s.length if s.mask is None else int(s.mask.sum()) for s in spans)
    assert set(real) == set(mixed_stream.KINDS)
    for name, tokens in real.items():
        assert lines[name]["tokens"] == tokens
        assert lines[name]["packed"] <= 0.02
    assert lines["all five"]["packed"] <= 0.02
    assert lines["all five"]["padded"] > 0.2, "or the stream is not mixed enough to tell"
    assert lines["all five"]["bucketed"] < lines["all five"]["padded"]


def test_buckets_keep_every_sample_and_the_sizes_of_the_batches():
    lengths = [[2, 9], [3, 8, 4], [7, 1]]
    found = bucketed(lengths)
    assert found == [[1, 2], [3, 4, 7], [8, 9]]
    assert wasted(lengths) == pytest.approx(1 - 34 / (18 + 24 + 14))
    assert wasted(found) == pytest.approx(1 - 34 / (4 + 21 + 18))
