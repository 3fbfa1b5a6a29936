"""A recipe -> everything a run needs: finished modalities, bound tasks, candidate sets, the model.

What is learnt from data (sub-words, table schemas, bins) is learnt from training splits only, once, and
saved with the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from data.source import Records
from data.stream import Feed
from generalist.config import GeneralistConfig
from generalist.model import GeneralistModel
from generalist.processor import GeneralistProcessor
from generalist.recipe import Recipe
from tasks.base import Task
from tasks.candidates import CandidateSet
from tokenizers_mod.base import Modality
from tokenizers_mod.modalities import modality_settings


@dataclass
class Prepared:
    """The parts of a run before its first step."""

    modalities: dict[str, Modality]
    tasks: dict[str, Task]
    records: dict[str, Records]
    sets: dict[str, CandidateSet]

    def feeds(self) -> dict[str, Feed]:
        return {
            name: Feed(self.records[name], task.example, task.collate, task.batch) for name, task in self.tasks.items()
        }

    def config(self, recipe: Recipe) -> GeneralistConfig:
        spec = recipe.model
        return GeneralistConfig(
            hidden_size=spec.width,
            num_hidden_layers=spec.layers,
            num_attention_heads=spec.heads,
            intermediate_size=spec.hidden,
            layer_scale=spec.layer_scale,
            drop_path=spec.drop_path,
            initial_scale=spec.initial_scale,
            embedding_norm=spec.embedding_norm,
            final_norm=spec.final_norm,
            **spec.moe.config(),
            tasks=list(self.tasks) if spec.moe.placement != "none" else None,
            modalities=modality_settings(self.modalities),
            scales=sorted({"default", *(t.scale for t in self.tasks.values())}),
        )

    def model(self, recipe: Recipe) -> GeneralistModel:
        """A fresh model; the same seed gives the same weights."""
        torch.manual_seed(recipe.seed)
        return GeneralistModel(self.config(recipe))

    def processor(self) -> GeneralistProcessor:
        text = self.modalities.get("text")
        tokenizer = None if text is None else text.hf_tokenizer()  # type: ignore[attr-defined]
        tasks = {t.name: t.about() for t in self.tasks.values()}
        return GeneralistProcessor(
            tokenizer=tokenizer,
            modalities=modality_settings(self.modalities),
            candidate_sets={name: s.to_dict() for name, s in self.sets.items()},
            tasks=tasks,
        )


def prepare(recipe: Recipe) -> Prepared:
    """Open the training splits, learn what is learnt from data, bind the tasks."""
    recipe.check()
    modalities = recipe.modalities
    for name, modality in modalities.items():
        modality.name = name  # type: ignore[misc]
    records = {task.name: task.source.open("train") for task in recipe.tasks}
    texts: list[str] = []
    for task in recipe.tasks:
        task.learn(modalities, records[task.name])
        texts += task.texts(records[task.name])
    for modality in modalities.values():
        modality.learn_texts(texts)
    sets = {}
    for task in recipe.tasks:
        task.bind(modalities, None, records[task.name].info)
        task.adopt(task.candidate_set(records[task.name]))
        if task.candidates is not None:
            sets[task.name] = task.candidates
    return Prepared(modalities, {t.name: t for t in recipe.tasks}, records, sets)


def restore(recipe: Recipe, processor: GeneralistProcessor) -> Prepared:
    """The same parts from a saved model folder: nothing is learnt again."""
    modalities, sets = processor.built, processor.sets
    records = {task.name: task.source.open("train") for task in recipe.tasks}
    for task in recipe.tasks:
        task.bind(modalities, sets.get(task.name), records[task.name].info)
    return Prepared(modalities, {t.name: t for t in recipe.tasks}, records, sets)
