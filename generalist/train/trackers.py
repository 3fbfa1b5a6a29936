"""Where a run's scalars go besides log.jsonl: TensorBoard, or any tracker that accelerate knows, by name.

A tracker of your own is a class of `accelerate.tracking` that a recipe's file registers
(`accelerate.tracking.register_tracker_class`). They are opened once a run, in the process that writes the log. A
recipe's watches (`generalist.recipe.watch`) are told the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generalist.data.base.errors import UserError, nearest
from generalist.recipe.json import to_json
from generalist.recipe.recipe import Recipe
from generalist.recipe.watch import Watch

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

OURS = "tensorboard"  # which `EventLog` writes itself, so that a resumed run's curves go on without a seam


class Trackers:
    """Open trackers; all are told the same."""

    def __init__(self, opened: list[GeneralTracker | Watch]) -> None:
        self.opened = opened

    def log(self, values: dict[str, float], step: int) -> None:
        for tracker in self.opened:
            tracker.log(values, step=step)

    def close(self) -> None:
        for tracker in self.opened:
            tracker.finish()


def check_trackers(names: list[str]) -> None:
    """UserError for a tracker that nobody knows, or whose package is not installed."""
    if not (wanted := [name for name in names if name != OURS]):
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import LoggerType

    known, here = sorted(LOGGER_TYPE_TO_CLASS), {kind.value for kind in get_available_trackers()}
    for name in wanted:
        if name not in known:
            raise UserError(f"no tracker is called {name!r}; {nearest(name, known)} (valid: {', '.join(known)})")
        if name in {kind.value for kind in LoggerType} and name not in here:
            raise UserError(f"the tracker {name!r} is not installed: pip install {name.replace('_', '-')}")


@contextmanager
def opened(recipe: Recipe, out: Path, rank: int) -> Iterator[Trackers | None]:
    """The recipe's trackers besides TensorBoard, told the recipe's keys; None where there are none, and on every rank
    but the first."""
    names = [name for name in recipe.trackers if name != OURS]
    if rank or not (names or recipe.watches):
        yield None
        return
    for watch in recipe.watches:
        watch.begin(out)
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # trackers ask it which process they are in
    made: list[GeneralTracker | Watch] = [*recipe.watches]
    for name in names:
        kind: Any = LOGGER_TYPE_TO_CLASS[name]
        folder = (str(out / "trackers"),) if kind.requires_logging_directory else ()
        tracker = kind(out.name, *folder)
        tracker.start()
        tracker.store_init_configuration(flat(to_json(recipe)))
        made.append(tracker)
    trackers = Trackers(made)
    try:
        yield trackers
    finally:
        trackers.close()


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """A JSON tree as {"optimizer.lr": value}; lists as text, since not every tracker takes them."""
    if isinstance(tree, dict):
        return {key: value for name, held in tree.items() for key, value in flat(held, f"{path}{name}.").items()}
    if not isinstance(tree, str | int | float | bool):
        tree = str(tree)
    return {path.rstrip("."): tree}
