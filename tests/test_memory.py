"""What is made of a sample is kept in memory: made once, never another, never more than the limit."""

import pickle
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.data.stream.memory import Memory, Remembered, size_of
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.stream import Steps, loader
from generalist.recipe.load import load_recipe
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.cached import remember
from generalist.tokenizers_mod.base.modalities import build_modalities
from generalist.tokenizers_mod.base.views import seen_as
from generalist.tokenizers_mod.tables.schema import Schema
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image
from generalist.tokenizers_mod.vision.video import Video
from generalist.train.prepare import prepare

numbers = np.random.default_rng(0)
ROWS = [{"age": 3.5, "city": "x"}, {"age": None, "city": "y"}]
RING = {"nodes": [0, 1, 2, 1, 0], "edges": [[0, 1], [1, 2], [2, 3], [3, 4]]}
# settings under which training draws something, where the modality can; a raw value
DRAWN = {
    "text": ({"max_length": 12, "positions": 12, "drop": 0.5}, "a photo of two dogs on a mat"),
    **{name: ({"size": 16, "patch": 8, "shift": 3}, numbers.random((7, 11)) + 0.1) for name in ("image", "depth")},
    **{name: ({"size": 16, "patch": 8, "shift": 3}, numbers.random((11, 7))) for name in ("xray", "thermal")},
    "spectral": ({"bands": 5, "patch": 3, "flip": True}, numbers.random((7, 3, 5))),
    "video": ({"size": 8, "patch": 4, "frames": 5, "augment": "crop"}, numbers.random((7, 9, 12, 3))),
    "audio": (
        {"rate": 8000, "mels": 10, "patch": [10, 4], "stride": [10, 4], "max_seconds": 0.3, "mask_frames": 5},
        (numbers.random(3000) - 0.5, 8000),
    ),
    "imu": ({"channels": 3, "patch": 4, "scale": 0.1}, numbers.random((21, 3))),
    "graph": ({"node_columns": [3], "identifiers": 2}, RING),
    "points": (
        {"groups": 5, "size": 3, "hidden": 4, "rotate": True, "scale": 0.1, "jitter": 0.1},
        numbers.random((23, 3)),
    ),
    "series": ({"patch": 4}, numbers.random(23)),
    "slot": ({"patch": 3}, numbers.random(7)),
    "table": ({"schemas": {"t": Schema.learn(ROWS).to_json()}, "noise": 0.3}, {"age": 4.0, "city": "y"}),
    "number": ({}, [1.5, 2.0]),
}
STILL = {
    "text": {"drop": 0.0},
    **{name: {"shift": 0} for name in ("image", "depth", "xray", "thermal")},
    "audio": {"max_seconds": 0.0, "mask_frames": 0},
    "points": {"points": 0, "rotate": False, "scale": 0.0, "jitter": 0.0},
    "number": {},
    "series": {},
    "spectral": {"flip": False},
    "imu": {"scale": 0.0},
    "video": {"augment": "none", "moving": True, "temporal_offset": False},
    "table": {"unknown": 0.0, "noise": 0.0},
}
CASES = [(n, s, raw) for n, (s, raw) in DRAWN.items()] + [(n, DRAWN[n][0] | s, DRAWN[n][1]) for n, s in STILL.items()]


def equal(a, b) -> bool:
    parts = [(a.data[k], b.data[k]) for k in a.data] + [(a.mask, b.mask), (a.labels, b.labels)]
    same = [x is y or x.numpy().tobytes() == y.numpy().tobytes() for x, y in parts]  # NaN equals NaN
    return all(same) and (a.modality, a.length, a.grid) == (b.modality, b.length, b.grid)


@pytest.mark.parametrize("name, settings, raw", CASES)
def test_spans_of_a_modality_with_memory_are_those_without(name, settings, raw):
    plain, held = (build_modalities({name: settings})[name] for _ in range(2))
    memory = Memory(10**7)
    remember(held, memory)
    kept = memory.record("task", [{"id": "0", "value": raw}], 0)["value"]
    for seed in (None, 0, 1, 2, None, 0):
        a, b = (None if seed is None else torch.Generator().manual_seed(seed) for _ in range(2))
        assert equal(plain.span(plain.read(raw), a), held.span(held.read(kept), b)), f"draw {seed}"
    assert held.read(kept) is held.read(kept), "read once"
    assert ("span" in held.steady()) == (name in STILL and settings == DRAWN[name][0] | STILL[name])
    if "span" in held.steady():
        assert held.span(held.read(kept)) is held.span(held.read(kept)), "and cut once"


def test_the_still_background_of_a_clip_is_made_once_though_its_start_in_time_is_drawn():
    plain, held = (Video(size=6, patch=3, frames=9, moving=True) for _ in range(2))
    memory = Memory(10**6)
    remember(held, memory)
    raw = memory.record("t", [{"clip": numbers.random((5, 7, 11, 3))}], 0)["clip"]
    spans = [
        [video.span(video.read(raw), torch.Generator().manual_seed(seed)) for seed in range(12)]
        for video in (plain, held)
    ]
    assert all(equal(a, b) for a, b in zip(*spans, strict=True))
    assert {int(span.data["place"][0, 0]) for span in spans[1]} == {0, 1, 2, 3, 4}
    assert held.shown(held.read(raw)) is held.shown(held.read(raw), torch.Generator())


def test_a_clip_that_is_looked_at_several_times_is_cut_anew_for_every_view():
    video, memory = Video(size=4, patch=4, frames=2, clips=2, crops=2), Memory(10**6)
    remember(video, memory)
    raw = memory.record("t", [{"clip": numbers.random((7, 5, 9, 3))}], 0)["clip"]
    seen = []
    for view in range(4):
        with seen_as([video], view):
            seen.append(video.span(video.read(raw)).data["patch"].numpy().tobytes())
    assert len(set(seen)) == 4


@cache
def forecasts(gb: float) -> tuple[list[bytes], Memory]:
    """The tensors of 100 batches of forecasts, 20 epochs of 40 windows."""
    recipe = load_recipe("demo")
    recipe.tasks = [t for t in recipe.tasks if t.name == "series"]
    recipe.modalities["text"].learn_texts(["no text is read, but a recipe has the modality"])
    recipe.tasks[0].batch, recipe.memory_gb = 8, gb
    prepared = prepare(recipe)
    feed = prepared.feeds()["series"]
    feed.records = feed.records.spread(40)
    found: list[bytes] = []
    for batch in loader(Steps({"series": feed}, Schedule(["series"], [1.0], 0), 0), 0, 100):
        batch.inputs.map(lambda t: found.append(t.numpy().tobytes()) or t)
    return found, prepared.memory


def test_a_hundred_batches_of_forecasts_are_bit_equal_with_any_memory():
    without, empty = forecasts(0.0)
    whole, full = forecasts(1.0)
    part, partly = forecasts(1e-4)
    assert without == whole == part and len(set(without)) > 100
    assert empty.used == 0 < partly.used <= 1e5 < full.used


def test_masked_words_do_not_depend_on_what_was_kept():
    plain, held = Text(max_length=9, positions=9), Text(max_length=9, positions=9)
    memory = Memory(10**6)
    remember(held, memory)
    line = memory.record("t", [{"text": "two dogs run <|endoftext|> over the lawn"}], 0)["text"]
    for seed in range(20):
        a, b = (text.masked(line, torch.Generator().manual_seed(seed), 0.4) for text in (plain, held))
        assert equal(a, b) and torch.equal(a.asked, b.asked)


def test_a_subclass_that_draws_where_its_base_does_not_is_asked_every_time():
    @dataclass
    class Noisy(Image):
        def span(self, value, rng=None):
            span = super().span(value, rng)
            return replace(span, data=span.data | {"patch": span.data["patch"] + torch.rand(1, generator=rng)})

    noisy, memory = Noisy(size=16, patch=8), Memory(10**6)
    remember(noisy, memory)
    raw = memory.record("t", [{"image": np.zeros((5, 7))}], 0)["image"]
    first, second = (noisy.span(noisy.read(raw), torch.Generator().manual_seed(s)) for s in (0, 1))
    assert not torch.equal(first.data["patch"], second.data["patch"])


class Counted(list):
    """Rows that count how often they are made."""

    made = 0

    def __getitem__(self, number):
        Counted.made += 1
        return {"id": str(number), "wave": np.full(100, float(number), dtype=np.float32)}


def test_records_are_made_once_and_given_as_copies():
    rows, memory = Counted([0] * 5), Memory(10**5)
    before = Counted.made
    first = memory.record("t", rows, 3)
    first["more"] = 1
    again = memory.record("t", rows, 3)
    assert Counted.made == before + 1 and set(again) == {"id", "wave"} and again["wave"] is first["wave"]
    memory.record("other", rows, 3)
    assert Counted.made == before + 2, "sets of one name are one set, others are not"


def test_a_set_of_which_no_quarter_may_be_kept_is_not_kept_at_all():
    rows, memory = Counted([0] * 100), Memory(100 * 400)
    for _ in range(2):
        memory.record("t", rows, 3)
    assert memory.used == 0 and not memory.knows(memory.record("t", rows, 3)["wave"])


def test_memory_stays_under_its_limit_and_still_answers():
    memory = Memory(12000)
    double = Remembered(lambda x: x * 2, memory)
    values = [np.arange(50.0) + i for i in range(20)]
    kept = [memory.keep(value) for value in values]
    assert 0 < memory.used <= 3000, "one set takes a quarter at most"
    assert kept == sorted(kept, reverse=True) and 1 < sum(kept) < 20
    assert all(np.array_equal(double(value), value * 2) for value in values)
    assert memory.used <= 3000
    rows = [{"x": np.arange(50.0)}]
    assert [memory.knows(memory.record(name, rows, 0)["x"]) for name in "abc"] == [True] * 3, "others have theirs"


def test_a_large_value_is_not_kept_where_many_small_ones_are():
    memory = Memory(10**9)
    assert not memory.keep(np.zeros(2**18)) and memory.keep(np.zeros(2**16)) and memory.used < 10**6


def test_what_is_not_kept_is_made_anew_and_nothing_is_kept_of_it():
    memory = Memory(10**6)
    made = []
    double = Remembered(lambda x, *more, **named: made.append(x) or x * 2, memory)
    value = np.arange(3.0)
    assert double(value) is not double(value) and memory.used == 0
    memory.keep(value)
    assert double(value) is double(value) and len(made) == 3
    assert double(value, torch.Generator()) is double(value), "a generator makes no difference"
    assert double(value, None, "other") is not double(value) and double(value, unit=1) is not double(value)


def test_errors_are_raised_every_time_and_unknown_objects_are_never_kept():
    class Strange:
        pass

    memory = Memory(10**6)
    rows = [{"id": "a", "x": Strange()}]
    assert memory.record("t", rows, 0)["x"] is rows[0]["x"] and memory.used == 0

    class Broken(list):
        def __getitem__(self, number):
            raise UserError("cannot be read")

    for _ in range(2):
        with pytest.raises(UserError, match="cannot be read"):
            memory.record("b", Broken([1]), 0)
    with pytest.raises(UserError, match="negative"):
        Memory(-1)


def test_sizes_are_about_those_of_the_tensors_and_arrays():
    span = Image(size=16, patch=8).span(torch.zeros(1, 16, 16))
    tensors = sum(t.nbytes for t in span.data.values())
    assert tensors <= size_of(span) <= tensors + 1000
    nested = {"a": np.zeros((3, 5)), "b": [b"1234567", ("x", None, 2.5)]}
    assert 120 + 7 <= size_of(nested) <= 1000
    assert size_of(object()) is size_of([object()]) is size_of(np.array([object()])) is None


def test_a_loader_process_starts_with_an_empty_memory_of_the_same_limit():
    memory = Memory(12345)
    double = Remembered(abs, memory)
    value = np.arange(5.0)
    memory.keep(value)
    double(value)
    other = pickle.loads(pickle.dumps(double))
    assert other.memory.limit == 12345 and other.memory.used == 0 and np.array_equal(other(value), value)


@cache
def batches(gb: float, workers: int) -> list[bytes]:
    """The tensors of 84 batches: three epochs of a table, two of pictures."""
    recipe = load_recipe("demo")
    recipe.tasks = [t for t in recipe.tasks if t.name in ("wine", "digits")]
    recipe.memory_gb, recipe.workers = gb, workers
    schedule = Schedule(["wine", "digits"], [1.0, 5.0], 0)
    found: list[bytes] = []
    for batch in loader(Steps(prepare(recipe).feeds(), schedule, 0), 0, 84, workers):
        batch.inputs.map(lambda t: found.append(t.numpy().tobytes()) or t)
    return found


@pytest.mark.parametrize("gb, workers", [(1.0, 0), (1.0, 2), (2e-5, 0)])
def test_batches_are_bit_equal_with_any_memory_and_workers(gb, workers):
    """With 20 kB some records are kept and some are not."""
    assert batches(gb, workers) == batches(0.0, 0)


def test_every_modality_may_be_remembered_by_default():
    assert Modality().steady() == ("read",)
