"""A recipe -> everything a run needs: finished modalities, bound tasks, candidate sets, the model.

What is learnt from data (sub-words, table schemas, bins) is learnt from training splits only, once, and
saved with the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from generalist.data.base.errors import UserError
from generalist.data.files.cache import SizedCache, default_folder
from generalist.data.stream.memory import Memory
from generalist.data.stream.source import Records, from_sound
from generalist.data.stream.stream import Feed
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.hf.processor import GeneralistProcessor
from generalist.model.config import inputs_of
from generalist.model.objective import Objective
from generalist.nn.mixers.table import check
from generalist.recipe.recipe import Recipe
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.names import CandidateSet
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.cached import cache_reads, remember
from generalist.tokenizers_mod.base.capabilities import Adopts, Tokenizes
from generalist.tokenizers_mod.base.modalities import modality_settings
from generalist.tokenizers_mod.text.text import Text
from generalist.train.freeze import freeze, load_encoder
from generalist.train.start.grow import adopt_towers
from generalist.train.start.initial import adopt_tokenizers, initial_folder, known, law_of_start, started_from

BYTES = 258  # entries of a vocabulary that has learnt no words


@dataclass
class Prepared:
    """The parts of a run before its first step."""

    modalities: dict[str, Modality]
    tasks: dict[str, Task]
    records: dict[str, Records]
    sets: dict[str, CandidateSet]
    memory: Memory | None = None
    law: dict[str, Any] = field(default_factory=dict)  # of the model that the run starts from, besides its scales

    def describe(self, recipe: Recipe) -> str:
        """What will be trained, on what, and for how long, before the first step."""
        made_up = [name for name, records in self.records.items() if records.info.get("synthetic")]
        real = [name for name in self.tasks if name not in made_up]
        lines = [f"{recipe.name}: {recipe.about}", f"  {recipe.steps} steps of {len(self.tasks)} tasks"]
        if recipe.step_seconds:
            minutes = recipe.steps * recipe.step_seconds / 60
            lines[-1] += f", about {minutes:.0f} min on two cores" if minutes >= 1 else ", under a minute on two cores"
        if real:
            lines.append(f"  real data: {', '.join(real)}")
        for name, records in self.records.items():
            notes = [*records.info.get("notes", []), *self.tasks[name].notes(records)]
            lines += [f"  {name}: {note}" for note in notes]
        begun = known(self.modalities, Path(recipe.init)) if recipe.init else {}  # which the start's own weights fill
        lines += [f"  {n}: {told}" for n, m in self.modalities.items() if n not in begun for told in m.told()]
        if made_up:
            lines.append(f"  SYNTHETIC data, generated: {', '.join(made_up)}")
        return "\n".join(lines)

    def feeds(self) -> dict[str, Feed]:
        return {
            name: Feed(self.records[name], task.example, task.collate, task.batch, self.memory)
            for name, task in self.tasks.items()
        }

    def linear_heads(self) -> dict[str, int]:
        """{logit scale: classes} of the tasks that rank names. UserError where two with one scale differ in size."""
        found: dict[str, int] = {}
        for task in self.tasks.values():
            classes = 0 if task.candidates is None else len(task.candidates.offered())
            if classes and found.setdefault(task.scale, classes) != classes:
                raise UserError(
                    f"model.linear_heads: tasks with {found[task.scale]} and {classes} classes share the scale "
                    f"{task.scale!r}; set tasks.{task.name}.scale={task.name}"
                )
        return found

    def zero_shot_scale(self) -> str:
        """The logit scale of candidates that a client gives: a task's that ranks names, else one of two directions."""
        ranked = [t.scale for t in self.tasks.values() if t.candidates is not None and t.candidates.offered()]
        return next(iter([*ranked, *(t.scale for t in self.tasks.values() if t.symmetric)]), "default")

    def config(self, recipe: Recipe) -> GeneralistConfig:
        spec = started_from(recipe)
        scales = sorted({"default", *(t.scale for t in self.tasks.values())})
        return GeneralistConfig(
            **spec.described(),
            linear_heads=self.linear_heads() if spec.linear_heads else None,
            tasks=list(self.tasks),
            task_sides={name: task.sides() for name, task in self.tasks.items()},
            modalities=modality_settings(self.modalities),
            scales=scales,
            zero_shot_scale=self.zero_shot_scale(),
            writing_scale=writing_scale(self.tasks.values()),
            **self.law | ({"biases": scales} if self.law.get("biases") else {}),
            frozen=recipe.save.frozen,
        )

    def model(self, recipe: Recipe) -> GeneralistModel:
        """A fresh model; the same seed gives the same weights."""
        torch.manual_seed(recipe.seed)
        model = GeneralistModel(self.config(recipe))
        if recipe.model.encoder_from and not recipe.model.random_encoder:
            load_encoder(model, Path(recipe.model.encoder_from))
        freeze(model, recipe.model.freeze)
        return model

    def objective(self, recipe: Recipe) -> Objective:
        """A fresh model with everything that it is trained on."""
        mixed = recipe.sampling == "mixed"
        return Objective(self.model(recipe), self.sets, self.modalities, recipe.candidates, mixed)

    def processor(self) -> GeneralistProcessor:
        text = self.modalities.get("text")
        if not isinstance(text, Text):  # a processor has a tokenizer; without words in the model it is one of bytes
            text = Text(tokenizer="", learn=BYTES) if text is None else text
            text.learn_texts([""])
        assert isinstance(text, Tokenizes)
        return GeneralistProcessor(
            tokenizer=text.hf_tokenizer(),
            modalities=modality_settings(self.modalities),
            candidate_sets={name: s.to_dict() for name, s in self.sets.items()},
            tasks=self.tasks,
        )


def writing_scale(tasks: Iterable[Task]) -> str:
    """The logit scale of the words of a task that writes, "" where none does."""
    return next((task.scale for task in tasks if task.writes), "")


def _texts(task: Task, records: Records, modalities: dict[str, Modality]) -> list[str]:
    """What sub-words are learnt from: a task's answers, the words around them, and what goes in where that is asked."""
    wanted = [name for m, name in task.inputs.items() if m in modalities and modalities[m].learns_inputs()]
    values = [records[i].get(name) for name in wanted for i in range(len(records))]
    return [*task.texts(records), *task.wordings(), *(v for v in values if isinstance(v, str))]


def check_model(recipe: Recipe) -> None:
    """UserError for a model that cannot work, by itself or with the recipe's modalities and tasks; no data are read.

    The modalities of two towers that the run starts from are put into the recipe.
    """
    asked = {name for task in recipe.tasks for name in task.inputs}
    if recipe.init:
        adopt_towers(recipe, initial_folder(Path(recipe.init)))
    check(started_from(recipe), lambda: inputs_of(recipe.modalities, bool(writing_scale(recipe.tasks)), asked))


def prepare(recipe: Recipe) -> Prepared:
    """Open the training splits, learn what is learnt from data, bind the tasks."""
    recipe.check()
    modalities = recipe.modalities
    for name, modality in modalities.items():
        modality.called(name)
    check_model(recipe)
    if recipe.init:
        adopt_tokenizers(modalities, Path(recipe.init))
    if recipe.asked_method == "distill":  # a teacher reads what the student does
        adopt_tokenizers(modalities, Path(recipe.distill.teacher), "distill.teacher")
    for modality in modalities.values():
        if isinstance(modality, Adopts):
            modality.adopt()
    records = {task.name: task.open("train") for task in recipe.tasks}
    texts: list[str] = []
    for task in recipe.tasks:
        from_sound(partial(task.learn, modalities), records[task.name])
        texts += from_sound(partial(_texts, task, modalities=modalities), records[task.name])
    for modality in modalities.values():
        modality.learn_texts(texts)
    sets = {}
    for task in recipe.tasks:
        task.bind(modalities, None, records[task.name].info)
        task.adopt(from_sound(task.candidate_set, records[task.name]))
        if task.candidates is not None:
            sets[task.name] = task.candidates
    if recipe.cache_gb:
        cache = SizedCache(default_folder() / "decoded", int(recipe.cache_gb * 1e9), small=True)
        for modality in modalities.values():
            cache_reads(modality, cache)
    memory = Memory(int(recipe.memory_gb * 1e9 / max(1, recipe.workers)))
    for modality in modalities.values():
        remember(modality, memory)
    return Prepared(modalities, {t.name: t for t in recipe.tasks}, records, sets, memory, law_of_start(recipe))


def restore(recipe: Recipe, processor: GeneralistProcessor) -> Prepared:
    """The same parts from a saved model folder: nothing is learnt again."""
    built, sets = processor.built, processor.sets
    modalities = {name: built[name] for name in recipe.modalities}  # a saved folder sorts them, an optimiser counts
    records = {task.name: task.open("train") for task in recipe.tasks}
    for task in recipe.tasks:
        task.bind(modalities, sets.get(task.name), records[task.name].info)
    return Prepared(modalities, {t.name: t for t in recipe.tasks}, records, sets)
