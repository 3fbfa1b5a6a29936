"""Scalars go to any tracker of accelerate, opened once a run in the process that writes the log."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, TensorBoardTracker
from tiny import tiny

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.recipe.json import to_json
from generalist.recipe.watch import Watch
from generalist.run.train import train_run
from generalist.train.events import read_log
from generalist.train.trackers import check_trackers, opened


class Board(TensorBoardTracker):
    """A tracker that writes to disk, as a user's file registers one."""

    name = "board"


def small(**keys):
    return tiny(steps=4, baseline="false", **keys)


def test_a_run_tells_its_trackers_what_it_logs_and_draws_nothing_else(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "board", Board)
    (tmp_path / "recipe.json").write_text(json.dumps(to_json(small())))
    run = tmp_path / "run"
    assert main(["train", str(tmp_path / "recipe.json"), "--out", str(run), "--quiet", "--log", "board"]) == 0
    assert not (run / "tensorboard").exists()  # it was not asked for
    board = EventAccumulator(str(run / "trackers" / "run"))
    board.Reload()
    told = {(tag, s.step): s.value for tag in board.Tags()["scalars"] for s in board.Scalars(tag)}
    events = read_log(run)
    assert len(events) == 4
    for event in events:
        assert told["loss/" + event["task"], event["step"]] == pytest.approx(event["loss"], rel=1e-6)
        assert told["lr", event["step"]] == pytest.approx(event["lr"], rel=1e-6)
    assert len(list((run / "trackers" / "run").glob("events.*"))) == 1
    saved = json.loads((run / "recipe.json").read_text())
    assert saved["trackers"] == ["board"]


def test_only_the_first_rank_opens_trackers_and_tensorboard_alone_needs_none(tmp_path, monkeypatch):
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "board", Board)
    for recipe, rank in ((small(trackers='["board"]'), 1), (small(), 0)):
        with opened(recipe, tmp_path, rank) as trackers:
            assert trackers is None
    assert not list(tmp_path.iterdir())


def test_a_tracker_that_cannot_be_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no tracker is called 'wandbb'; did you mean 'wandb'"):
        check_trackers(["tensorboard", "wandbb"])
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(UserError, match="'comet_ml' is not installed: pip install comet-ml"):
        train_run(small(trackers='["comet_ml"]'), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@dataclass
class Seen(Watch):
    """Writes down what it is told of."""

    of: str = "loss/"
    told: list[tuple] = field(default_factory=list, init=False)

    def begin(self, out: Path) -> None:
        self.told.append(("begin", out.name))

    def log(self, values: dict[str, float], step: int) -> None:
        self.told += [(step, name, value) for name, value in values.items() if name.startswith(self.of)]

    def finish(self) -> None:
        self.told.append(("finish",))


def test_a_watch_of_the_recipe_is_told_every_step(tmp_path):
    recipe, watch = small(), Seen()
    recipe.watches = [watch]
    train_run(recipe, tmp_path / "run", quiet=True)
    first, *steps, last = watch.told
    assert first == ("begin", "run") and last == ("finish",)
    events = read_log(tmp_path / "run")
    assert steps == [(event["step"], "loss/" + event["task"], event["loss"]) for event in events] and len(steps) == 4
    saved = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert saved["watches"] == [{"class": f"{Seen.__module__}:Seen", "of": "loss/"}]
    recipe.watches = ["loud"]
    with pytest.raises(UserError, match="no Watch"):
        recipe.check()
