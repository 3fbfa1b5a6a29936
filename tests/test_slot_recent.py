"""Slots that hold the newest values of the past: what they hold, and that forecasts use it."""

import numpy as np
import torch

from generalist.data.stream.source import Records
from generalist.tasks.kinds.forecast import Forecast
from generalist.tokenizers_mod.numbers.number import Number
from generalist.tokenizers_mod.numbers.series import Series
from generalist.tokenizers_mod.numbers.slot import Slot
from generalist.tokenizers_mod.text.summary import Summary


def test_every_slot_holds_the_newest_values_and_which_were_observed():
    slot = Slot(patch=3, recent=4)
    past = torch.tensor([1.0, 2.0, float("nan")])
    span = slot.remember(slot.span(7), past)
    assert span.data["recent"].shape == (3, 8)
    assert span.data["recent"][1].tolist() == [0, 1, 2, 0, 0, 1, 1, 0]
    assert slot.build(6)(span.data).shape == (3, 6)
    assert "recent" not in Slot(patch=3).remember(Slot(patch=3).span(7), past).data


def test_a_forecast_gives_its_slots_the_normalised_past():
    rows = [
        {"id": str(i), "past": np.arange(10.0) + i, "future": np.arange(10.0, 15.0) + i, "period": 2} for i in range(9)
    ]

    class Few:
        def open(self, split):
            return Records(rows, {})

    task = Forecast(name="f", source=Few(), horizon=5, bins=8)
    modalities = {"summary": Summary(), "series": Series(patch=2), "slot": Slot(patch=3, recent=2), "number": Number()}
    task.bind(modalities, None, {})
    task.bind(modalities, task.candidate_set(Records(rows, {})), {})
    slots = task.example(rows[4]).inputs[-1]
    past = rows[4]["past"]
    expected = (past[-2:] - past.mean()) / past.std()
    np.testing.assert_allclose(slots.data["recent"][0, :2], expected, atol=1e-4)
    assert slots.data["recent"][0, 2:].tolist() == [1, 1]
