"""Input or candidate: what a sequence is told of its side of the law, by one rule for every client.

A mixture of experts looks at more than the tokens: at the side that a sequence stands on, at the kinds of what stands
on the other side, at the task (`generalist.data.batch.routes.Role`). Training and evaluation know all of it
(`Task.sides`). The model
keeps it by task (`ModelConfig.task_sides`), and whoever has sequences or tensors in hand gets the same here:

    a task is named                     what that task was trained with
    none is named                       the kinds of the inputs and candidates at hand
    none, and the router goes by task   the task that takes such inputs among such candidates, the first of several
                                        (`ModelConfig.zero_shot_task` where set); a warning says which was taken

Deep prompts go by the side alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from warnings import warn

from generalist.data.base.errors import UserError, nearest
from generalist.data.batch.routes import Role
from generalist.data.batch.types import Span
from generalist.model.config import ModelConfig
from generalist.nn.experts.routing import Router
from generalist.tasks.base.told import GIVEN, Told

SUMMARY = "summary"  # the modality that asks; it is no content
INPUT, CANDIDATE = SIDES = ("input", "candidate")


def is_candidate(side: str) -> bool:
    """Whether a side's name means candidates. UserError for a name that is none."""
    if side not in SIDES:
        raise UserError(f"side={side!r}; {nearest(side, SIDES)} (valid: {', '.join(SIDES)})")
    return side == CANDIDATE


def modalities_of(sequences: Iterable[Sequence[Span]]) -> set[str]:
    """The modalities of the spans behind the summary, which stands first and may be a text."""
    return {span.modality for spans in sequences for span in (spans[1:] or spans)} - {SUMMARY}


class Sides:
    """The roles of a model's inputs and candidates. kinds: {modality: kind}; router: the model's, None without one."""

    def __init__(self, config: ModelConfig, kinds: Mapping[str, str], router: type[Router] | None) -> None:
        self.config, self.kinds = config, kinds
        self.by_task = router is not None and router.needs_task
        self.by_side = router is not None and router.needs_sides

    @property
    def trained(self) -> dict[str, Told]:
        """{task: what both of its sides were told}, in the order of config.tasks."""
        found = self.config.task_sides or {}
        names = dict.fromkeys([*(self.config.tasks or []), *found])
        return {name: Told.from_dict(found[name]) for name in names if name in found}

    def roles(
        self,
        inputs: Collection[str] | None,
        candidates: Collection[str] | None,
        task: str | None = None,
        writes: bool = False,
    ) -> tuple[Role, Role]:
        """The roles of inputs and of candidates of these modalities; None where a side is not at hand.

        task: its name, None where it is not known. writes: the answer is written, candidates are the vocabulary.
        """
        known = list(dict.fromkeys([*self.trained, *(self.config.tasks or [])]))
        if task and known and task not in known:
            raise UserError(f"this model has no task {task!r}; {nearest(task, known)}")
        if not task and self.by_task:
            task = self.chosen(inputs, candidates, writes)
        if task and task in self.trained:
            told = self.trained[task]
            return Role(other=tuple(told.input), task=task), Role(True, other=tuple(told.candidate), task=task)
        asked, answers = self.usual(inputs, candidates)
        return Role(other=asked, task=task or ""), Role(target=True, other=answers, task=task or "")

    def role(self, side: str, own: Collection[str], other: Collection[str] | None, task: str | None = None) -> Role:
        """The role of one side, of these modalities. other: those of the other side, None where it is not at hand."""
        return self.roles(other, own, task)[1] if is_candidate(side) else self.roles(own, other, task)[0]

    def usual(self, inputs: Collection[str] | None, candidates: Collection[str] | None) -> list[tuple[str, ...] | None]:
        """What each side is told of the other: by the tasks that ask so, else by the modalities at hand."""
        fits = self.fitting(inputs, candidates) if self.by_side else []
        told: list[tuple[str, ...] | None] = []
        for side, other in ((INPUT, candidates), (CANDIDATE, inputs)):
            found = list(dict.fromkeys(tuple(self.trained[name].of(side)) for name in fits))
            if other is not None and len(found) != 1:
                told.append(tuple(sorted({self.kinds[m] for m in other})))
                continue
            if len(found) > 1:
                _tell(f"what a {side} is compared with differs among {', '.join(fits)}; taken as of task {fits[0]!r}")
            told.append(found[0] if found else None)
        return told

    def fitting(
        self, inputs: Collection[str] | None, candidates: Collection[str] | None, writes: bool = False
    ) -> list[str]:
        """The tasks that take inputs of these modalities among candidates of those; None: any.

        Where no task takes just these inputs, those that take them and others: an input may lack a modality.
        writes: those that write. Else, where both are at hand, those whose candidates a client can give: tasks that
        rank names first, then those of two directions.
        """
        exact, more = [], []
        for name, own in self.trained.items():
            usable = own.writes if writes else own.given or None in (inputs, candidates)
            if not usable or (candidates is not None and set(candidates) != set(own.answers)):
                continue
            if inputs is None or set(inputs) == set(own.inputs):
                exact.append(name)
            elif set(inputs) < set(own.inputs):
                more.append(name)
        return sorted(exact or more, key=lambda name: GIVEN.index(self.trained[name].given))

    def chosen(self, inputs: Collection[str] | None, candidates: Collection[str] | None, writes: bool = False) -> str:
        """The task of a question that names none, for a router that goes by task; "" where none fits."""
        if self.config.zero_shot_task and not writes:
            return self.config.zero_shot_task
        fits = self.fitting(inputs, candidates, writes)
        what = " + ".join(sorted(inputs or candidates or ["nothing"]))
        if not fits:
            _tell(f"no task of this model was taught to compare {what} so: its experts are the mean over all tasks")
        elif len(fits) > 1:
            _tell(f"{what} can be asked as {', '.join(fits)}; taken as of task {fits[0]!r}")
        return fits[0] if fits else ""

    def scale(self, inputs: Collection[str], candidates: Collection[str]) -> str:
        """The logit scale of such a question: that of the tasks that ask it, else config.zero_shot_scale."""
        named = self.trained.get(self.config.zero_shot_task)
        found = [named] if named else [self.trained[name] for name in self.fitting(inputs, candidates)]
        scales = {told.scale for told in found}
        return scales.pop() if len(scales) == 1 else self.config.zero_shot_scale


def _tell(line: str) -> None:
    warn(f"{line}; name the task to choose (task=..., or zero_shot_task in the model's configuration)", stacklevel=3)
