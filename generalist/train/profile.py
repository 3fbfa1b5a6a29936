"""`profile=true`: where a step's time goes, and a trace of a few steps to look at (chrome://tracing, Perfetto).

The parts are measured from outside, by hooks on the model's parts and around the engine's verbs; the run itself
computes what it always does. Inputs and candidates go through the encoder together, so its time is shared out by
their tokens. Communication is what torch's profiler saw of collective operations; it lies within backward and
optimiser and is listed beside them, not in the sum.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generalist.data.batch.types import Batch
from generalist.train.engines.base import Engine

SKIP = 3  # steps that warm up
STEPS = 12  # steps that are measured
COLLECTIVES = ("c10d::", "nccl:", "gloo:", "record_param_comms")


class Profile:
    """An engine that times the first steps of another, then writes what it found and gets out of the way."""

    def __init__(
        self,
        engine: Engine,
        objective: Any,
        batches: Iterator[Batch],
        out: Path,
        say: Callable[[str], Any] = lambda text: print(text, file=sys.stderr),
    ) -> None:
        self._engine, self._objective, self._batches = engine, objective, batches
        self._out, self._say = out / "profile", say
        self._taken: dict[str, float] = defaultdict(float)
        self._tokens = {"inputs": 0, "candidates": 0}
        self._step, self._began, self._seconds = 0, 0.0, 0.0
        self._hooks: list[Any] = []
        self._profiler: Any = None
        self.result: dict[str, Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    # --- the loop's side ---

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._profiler is None:
            return next(self._batches)
        start = time.perf_counter()
        batch = next(self._batches)
        self._taken["data wait"] += time.perf_counter() - start
        return batch

    def loss(self, batch: Batch) -> Tensor:
        if self._profiler is not None:
            other = batch.partners if batch.partners is not None else self._objective.packed(batch.candidates)
            self._tokens["inputs"] += batch.inputs.tokens
            self._tokens["candidates"] += other.tokens
        return self._timed("forward", lambda: self._engine.loss(batch))

    def backward(self, loss: Tensor) -> None:
        self._timed("backward", lambda: self._engine.backward(loss))

    def step(self, lr: float, share: float, omega: float, apply: bool = True) -> float:
        norm = self._timed("optimiser", lambda: self._engine.step(lr, share, omega, apply))
        self._step += 1
        if self._step == SKIP and self.result is None:
            self._start()
        elif self._step == SKIP + STEPS and self._profiler is not None:
            self._stop()
        return norm

    # --- measuring ---

    def _timed(self, part: str, call: Callable[[], Any]) -> Any:
        if self._profiler is None:
            return call()
        with torch.profiler.record_function(f"generalist::{part}"):
            self._wait()
            start = time.perf_counter()
            found = call()
            self._wait()
            self._taken[part] += time.perf_counter() - start
        return found

    def _wait(self) -> None:
        if self._engine.device.type == "cuda":
            torch.cuda.synchronize(self._engine.device)

    def _watch(self, part: str, module: torch.nn.Module) -> None:
        """Time a module's forward pass."""
        starts: list[float] = []

        def before(*_: Any) -> None:
            self._wait()
            starts.append(time.perf_counter())

        def after(*_: Any) -> None:
            self._wait()
            self._taken[part] += time.perf_counter() - starts.pop()

        self._hooks += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    def _start(self) -> None:
        model = self._objective.model
        for name, tokenizer in model.tokenizers.items():
            self._watch(f"tokenizer {name}", tokenizer)
        self._watch("encoder", model.encoder)
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if self._engine.device.type == "cuda":
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=kinds)
        self._profiler.__enter__()
        self._began = time.perf_counter()

    def _stop(self) -> None:
        self._seconds = time.perf_counter() - self._began
        self._profiler.__exit__(None, None, None)
        for hook in self._hooks:
            hook.remove()
        profiler, self._profiler = self._profiler, None
        collectives = [e for e in profiler.key_averages() if e.key.startswith(COLLECTIVES)]
        self._taken["communication"] = sum(e.cpu_time_total for e in collectives) / 1e6
        self.result = self._parts()
        if self._engine.rank == 0:
            self._out.mkdir(parents=True, exist_ok=True)
            profiler.export_chrome_trace(str(self._out / "trace.json"))
            (self._out / "profile.json").write_text(json.dumps(self.result, indent=1))
            self._say(self.text())

    def _parts(self) -> dict[str, Any]:
        """Milliseconds a step of every part; the parts add up to the step."""
        taken = {part: seconds / STEPS * 1000 for part, seconds in self._taken.items()}
        step = self._seconds / STEPS * 1000
        tokenizers = {n.removeprefix("tokenizer "): v for n, v in taken.items() if n.startswith("tokenizer ")}
        total = sum(self._tokens.values())
        candidates = taken.get("encoder", 0.0) * self._tokens["candidates"] / max(1, total)
        encoder = taken.get("encoder", 0.0) - candidates
        parts = {
            "data wait": taken.get("data wait", 0.0),
            "tokenizers": sum(tokenizers.values()),
            "encoder, inputs": encoder,
            "encoder, candidates": candidates,
            "likelihood": taken["forward"] - sum(tokenizers.values()) - encoder - candidates,
            "backward": taken["backward"],
            "optimiser": taken["optimiser"],
        }
        parts["loop and log"] = step - sum(parts.values())
        return {
            "steps": STEPS,
            "step_ms": step,
            "parts_ms": parts,
            "tokenizers_ms": tokenizers,
            "communication_ms": taken["communication"],
            "tokens": {name: count / STEPS for name, count in self._tokens.items()},
        }

    def text(self) -> str:
        """The result as a table."""
        assert self.result is not None
        step, parts = self.result["step_ms"], self.result["parts_ms"]
        lines = [f"profile: a step takes {step:.1f} ms (mean of {STEPS}, with the profiler on)"]
        lines += [f"  {name:<20}{ms:>9.2f} ms {100 * ms / step:5.1f} %" for name, ms in parts.items()]
        lines += [f"    {name:<18}{ms:>9.2f} ms" for name, ms in self.result["tokenizers_ms"].items() if ms >= 0.005]
        share = self.result["communication_ms"]
        lines.append(f"  {'communication':<20}{share:>9.2f} ms {100 * share / step:5.1f} %  (within the parts above)")
        counts = self.result["tokens"]
        lines.append(f"  tokens a step: {counts['inputs']:.0f} of inputs, {counts['candidates']:.0f} of candidates")
        lines.append(f"  trace: {self._out / 'trace.json'}")
        return "\n".join(lines)


def profiled(engine: Engine, batches: Iterator[Batch], out: Path, on: bool) -> tuple[Engine, Iterator[Batch]]:
    """The engine and batches as they are, or (`on`) with the first steps measured."""
    if not on:
        return engine, batches
    held: Any = engine
    objective = held.objective if hasattr(held, "objective") else held.engine.module
    profile: Any = Profile(engine, objective, batches, out)
    return profile, profile
