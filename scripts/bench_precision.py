"""A training step in bf16 over one in fp32, by width, and what `engine.precision=auto` takes here."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from generalist.recipe.keys import override
from generalist.scripts.bench_training import HERE, batches, demo, line, objective, through
from generalist.scripts.timing import alternate
from generalist.train.engines.build import build_engine
from generalist.train.engines.local import LocalEngine
from generalist.train.engines.precision import LOOKS

WIDTHS = (96, 384)


def measure(rounds: int) -> list[dict[str, Any]]:
    """The demo's digits at each width. `auto` is held to the cheaper of both by the bench's own times."""
    found = []
    for width in WIDTHS:
        recipe, prepared = demo(["digits"])
        override(recipe, f"model.width={width}")
        override(recipe, f"model.hidden={4 * width}")
        batch = batches(recipe, prepared, 1)["digits"][0]
        kinds = {k: replace(recipe, engine=replace(recipe.engine, precision=k)) for k in ("fp32", "bf16", "auto")}
        steps = {kind: through(kinds[kind], prepared, "local") for kind in ("fp32", "bf16")}
        timing = alternate({kind: partial(step, batch) for kind, step in steps.items()}, "fp32", rounds)
        found.append(line(f"bf16, a step of the demo's digits at width {width}", "fp32", timing, "bf16", "measured"))
        chosen = replace(kinds["auto"], engine=replace(kinds["auto"].engine, kind="local"))
        engine = build_engine(chosen, objective(chosen, prepared), HERE)
        assert isinstance(engine, LocalEngine) and engine.measured is not None
        for _ in range(LOOKS + 1):
            engine.backward((engine.loss(batch) / batch.count).sum())
            engine.step(1e-4, 1.0, 1.0)
        costs = {"fp32": 1.0, "bf16": timing.cpu["bf16"]}
        taken = engine.measured.taken or "fp32"
        what = f"engine.precision=auto at width {width} over the cheaper of both"
        found.append({"what": what, "least": costs[taken] / min(costs.values()), "target": 1.05, "taken": taken})
    return found
