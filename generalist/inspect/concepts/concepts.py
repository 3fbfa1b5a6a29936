"""Sparse concepts of every layer: how many are active, more the less an input is like the data, and what they do.

active: concepts of a sparse autoencoder (`generalist.inspect.concepts.sae`) that are not 0, a token, for inputs as
they are, with half or all of their contents in other places, and for noise of the same mean and deviation. The
autoencoders learn from one half of the records, drawn by turns; all that is told is of the other half. No labels are
needed; where there are some, concepts are asked which answers are wrong, else which are unsure.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records
from generalist.inspect.asking.disturb import noisy, shuffled
from generalist.inspect.asking.heats import heats
from generalist.inspect.asking.layers import behind
from generalist.inspect.asking.look import Look, frozen, looks
from generalist.inspect.base import Analyser
from generalist.inspect.concepts.sae import SparseAutoencoder, normalised, train
from generalist.inspect.concepts.uses import Steer, few, goodness, predicted, steered, weighted
from generalist.inspect.robust import right_ones
from generalist.inspect.training import Training
from generalist.model.objective import Objective
from generalist.tasks.base.task import Task

MOST = 512  # records of each half
LEAST = 20  # records
KINDS = ("natural", "half shuffled", "shuffled", "noise")
SHOWN = 8  # concepts
STRENGTH = 2.0  # of steering, times the largest activity
SUPPRESSED = 10


class Concepts(Analyser):
    """The analysis `--what concepts`. settled: the autoencoders are taught until how many are active has settled."""

    needs_answers: ClassVar[bool] = False

    def __init__(self, settled: bool = False) -> None:
        self.settled = settled
        self.saes: dict[str, SparseAutoencoder] = {}

    def run(
        self, task: Task, records: Records, objective: Objective, training: Training | None = None
    ) -> dict[str, Any]:
        if len(records) < LEAST:
            raise UserError(f"{len(records)} records: concepts are learnt on one half of them; give at least {LEAST}")
        learnt, told = (records.only(list(range(start, len(records), 2))).spread(MOST) for start in (1, 0))
        with frozen(objective.model):
            self.saes = _learnt(task, learnt, objective, self.settled)
            batches = list(looks(task, told, objective))
            layers, pooled = self._active(batches)
            found: dict[str, Any] = {"task": task.name, "n": len(told), "learnt": len(learnt), "layers": layers}
            found["predict"] = self._predicted(batches, pooled, task, told, objective)
            found["concepts"] = self._shown(batches, pooled, told)
        return found

    def files(self) -> dict[str, bytes]:
        """The autoencoders, a folder a layer."""
        return {
            f"{name}/{file}": content for name, sae in self.saes.items() for file, content in sae.files(name).items()
        }

    @torch.no_grad()
    def _active(self, batches: list[Look]) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
        """A line a layer, and the mean activity of every concept in every record, Float[n F]."""
        counts: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
        errors: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
        fired: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
        pooled: dict[str, list[Tensor]] = defaultdict(list)
        for number, look in enumerate(batches):
            rng = torch.Generator().manual_seed(number)
            inputs = (look.x, shuffled(look, 0.5, rng), shuffled(look, 1.0, rng), noisy(look, look.open, rng))
            again = noisy(look, look.open, rng)
            for kind, x in zip((*KINDS, "again"), (*inputs, again), strict=True):
                for name, own in behind(look, x)[0].items():
                    if name not in self.saes:
                        continue
                    sae, a = self.saes[name], normalised(own[look.open])
                    f = sae.encode(a)
                    fired[name, kind].append(f.gt(0).double().mean(0))
                    if kind == "again":
                        continue
                    counts[name, kind].append(f.gt(0).sum(1).double())
                    errors[name, kind].append(torch.stack([(a - sae.decode(f)).square().sum(1), a.square().sum(1)]))
                    if kind == "natural":
                        total = torch.zeros(look.count, f.shape[1], device=f.device)
                        owner = look.packed.owner[look.open]
                        each = torch.bincount(owner, minlength=look.count).clamp(min=1).unsqueeze(1)
                        pooled[name].append(total.index_add(0, owner, f) / each)
        lines = []
        for name, sae in self.saes.items():
            line: dict[str, Any] = {"layer": name, "concepts": len(sae.b_enc)}
            line["active"] = {kind: float(torch.cat(counts[name, kind]).mean()) for kind in KINDS}
            line["unexplained"] = {kind: _ratio(torch.cat(errors[name, kind], 1)) for kind in KINDS}
            rate = {kind: torch.stack(own).mean(0) for (of, kind), own in fired.items() if of == name}
            steady = (rate["noise"] > 0.25) & (rate["again"] > 0.25) & (rate["natural"] < 0.02)
            lines.append(line | {"of noise alone": int(steady.sum())})
        return lines, {name: torch.cat(parts) for name, parts in pooled.items()}

    def _predicted(
        self, batches: list[Look], pooled: dict[str, Tensor], task: Task, records: Records, objective: Objective
    ) -> dict[str, Any]:
        """Which answers are wrong, or where that is not known or rare, unsure; and without the concepts that say so."""
        with torch.no_grad():
            log_p = [(look, look.log_p()) for look in batches]
        unsure = torch.cat([-look.of(own, look.chosen(own)) for look, own in log_p]).double().cpu().numpy()
        target, what = unsure, "unsure answers"
        right = right_ones(task, records, objective)
        if right is not None:
            wrong = np.ones(len(records))
            wrong[right] = 0
            if not few(wrong) and wrong.any():
                target, what = wrong, "wrong answers"
        if len(np.unique(target)) < 2:
            return {"what": what, "layers": []}
        tensors = {name: own.double().cpu().numpy() for name, own in pooled.items()}
        lines = [{"layer": name, **goodness(target, predicted(own, target))} for name, own in tensors.items()]
        best = max(lines, key=lambda line: line.get("AUC", line.get("r", 0.0)))["layer"]
        top = np.argsort(-weighted(tensors[best], target), kind="stable")[:SUPPRESSED].tolist()
        without = [(look, steered(look, Steer(best, self.saes[best], {}, top))) for look in batches]
        after = torch.cat([-look.of(own, look.chosen(own)) for look, own in without]).double().cpu().numpy()
        found: dict[str, Any] = {"what": what, "layers": lines, "best": best, "suppressed": top}
        return found | {"share": float(target.mean()), "unsure": [float(unsure.mean()), float(after.mean())]}

    @torch.no_grad()
    def _shown(self, batches: list[Look], pooled: dict[str, Tensor], records: Records) -> list[dict[str, Any]]:
        """The last layer's concepts that differ most between records: where they are active, what steering does."""
        name = list(self.saes)[-1]
        sae, own = self.saes[name], pooled[name]
        out = []
        for concept in own.std(0).argsort(descending=True)[:SHOWN].tolist():
            at = int(own[:, concept].argmax())
            look = batches[at // batches[0].count]
            place = at - batches[0].count * (at // batches[0].count)
            f = sae.encode(normalised(behind(look)[0][name]))[:, concept]
            most = float(f[look.open].max())
            values = {"activity": f / max(most, 1e-9)}
            line = {"layer": name, "concept": concept, "most": most}
            line["share"] = float((own[:, concept] > 0).double().mean())
            line["steer"] = self._steer(batches[0], name, concept, STRENGTH * most)
            record = records[look.numbers[place]]
            line |= {"id": str(record.get("id", look.numbers[place])), "heats": heats(look, place, record, values)}
            out.append(line)
        return out

    def _steer(self, look: Look, name: str, concept: int, much: float) -> dict[str, Any]:
        """The candidate that gains most when the concept is added everywhere, and its mean p before and after."""
        before = look.log_p().exp().flatten(0, -2).mean(0)
        after = steered(look, Steer(name, self.saes[name], {concept: much})).exp().flatten(0, -2).mean(0)
        gains = int((after - before).argmax())
        candidates = look.task.candidates
        answer = "" if candidates is None else candidates.labels(look.task.modalities)[gains]
        return {"answer": answer, "before": float(before[gains]), "after": float(after[gains])}

    def table(self, found: dict[str, Any]) -> str:
        """Active concepts by layer and kind of input; what is said of wrong answers."""
        head = f"{found['task']}: active concepts a token over {found['n']} records, learnt on {found['learnt']} others"
        lines = [head]
        for line in found["layers"]:
            told = "   ".join(f"{kind} {line['active'][kind]:.2f}" for kind in KINDS)
            lines.append(
                f"  {line['layer']:<10} of {line['concepts']}: {told}   of noise alone {line['of noise alone']}"
            )
        predict = found["predict"]
        for line in predict["layers"]:
            name = "AUC" if "AUC" in line else "r"
            lines.append(f"  {predict['what']} from {line['layer']}: {name} {line[name]:.3f}")
        if "unsure" in predict:
            before, after = predict["unsure"]
            count = len(predict["suppressed"])
            lines.append(
                f"  without the {count} concepts that say so most: -log p of the answer {before:.3f} -> {after:.3f}"
            )
        return "\n".join(lines)


def _learnt(task: Task, records: Records, objective: Objective, settled: bool) -> dict[str, SparseAutoencoder]:
    """An autoencoder a layer. UserError where no layer has the input's tokens."""
    held: dict[str, list[Tensor]] = defaultdict(list)
    for look in looks(task, records, objective):
        for name, own in behind(look)[0].items():
            held[name].append(normalised(own[look.open]))
    held.pop("embedded", None)
    if not held:
        raise UserError("concepts need a layer with the tokens of the input; the first step of this model changes them")
    return {name: train(torch.cat(parts), settled=settled) for name, parts in held.items()}


def _ratio(parts: Tensor) -> float:
    error, total = parts.sum(1).tolist()
    return error / total if total else 0.0
