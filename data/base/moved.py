"""Old import paths and where they lead: saved recipes, checkpoints, model folders and older code name them.

`moved` is asked wherever a file names a class. `install` lets old imports go on, after every other finder has failed,
so that a package of the user's own is never hidden.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

TOP = ("data", "tokenizers_mod", "tasks", "scripts")  # once top-level packages

FOLDERS = ("data.embedded", "tokenizers_mod.proposers")  # moved with all that is in them

# old module -> new module; old module:name -> new module[:name] of names that left their module
MOVED: dict[str, str] = {
    "data.alike": "generalist.data.tools.alike",
    "data.annotated": "generalist.data.sources.annotated",
    "data.arrays": "generalist.data.media.arrays",
    "data.cache": "generalist.data.files.cache",
    "data.captions": "generalist.data.sources.captions",
    "data.cells": "generalist.data.batch.cells",
    "data.check": "generalist.data.tools.check",
    "data.clock": "generalist.data.tables.clock",
    "data.coco": "generalist.data.sources.coco",
    "data.codec": "generalist.data.media.codec",
    "data.columns": "generalist.data.tables.columns",
    "data.constants": "generalist.data.base.constants",
    "data.dates": "generalist.data.tables.dates",
    "data.embedded": "generalist.data.sources.embedded",
    "data.errors": "generalist.data.base.errors",
    "data.files": "generalist.data.base.files",
    "data.folder": "generalist.data.sources.folder",
    "data.hub": "generalist.data.sources.hub",
    "data.identity": "generalist.data.tables.identity",
    "data.jsons": "generalist.data.media.jsons",
    "data.kinds": "generalist.data.media.kinds",
    "data.known": "generalist.data.tools.known",
    "data.labels": "generalist.data.base.labels",
    "data.limits": "generalist.data.base.limits",
    "data.local": "generalist.data.sources.local",
    "data.media": "generalist.data.media.media",
    "data.media_columns": "generalist.data.tables.media_columns",
    "data.memory": "generalist.data.stream.memory",
    "data.order": "generalist.data.stream.order",
    "data.outliers": "generalist.data.base.outliers",
    "data.pack": "generalist.data.batch.pack",
    "data.paths": "generalist.data.files.paths",
    "data.pictures": "generalist.data.media.pictures",
    "data.pixels": "generalist.data.media.pixels",
    "data.places": "generalist.data.sources.places",
    "data.readers": "generalist.data.tables.readers",
    "data.remote": "generalist.data.files.remote",
    "data.routes": "generalist.data.batch.routes",
    "data.schedule": "generalist.data.stream.schedule",
    "data.settings": "generalist.data.sources.settings",
    "data.shard_writer": "generalist.data.tools.shard_writer",
    "data.shards": "generalist.data.sources.shards",
    "data.shipping": "generalist.data.batch.shipping",
    "data.sounds": "generalist.data.media.sounds",
    "data.source": "generalist.data.stream.source",
    "data.splits": "generalist.data.stream.splits",
    "data.statistics": "generalist.data.tools.statistics",
    "data.stream": "generalist.data.stream.stream",
    "data.table_limits": "generalist.data.tables.table_limits",
    "data.tabular": "generalist.data.sources.tabular",
    "data.tar": "generalist.data.files.tar",
    "data.trust": "generalist.data.base.trust",
    "data.typed": "generalist.data.tables.typed",
    "data.types": "generalist.data.batch.types",
    "data.windows": "generalist.data.sources.windows",
    "generalist.adapt": "generalist.adapt.methods",
    "generalist.agent": "generalist.launchers.agent",
    "generalist.any_to_any": "generalist.evaluate.any_to_any",
    "generalist.any_to_any:trained_pairs": "generalist.hf.card",
    "generalist.attention": "generalist.nn.attention.attend",
    "generalist.auto": "generalist.hf.auto",
    "generalist.cached": "generalist.nn.attention.kv_cache",
    "generalist.candidates": "generalist.model.candidates",
    "generalist.candidates:CandidateSpec": "generalist.recipe.specs",
    "generalist.checkpoint": "generalist.train.checkpoints.checkpoint",
    "generalist.compiled": "generalist.train.engines.compiled",
    "generalist.config": "generalist.model.config",
    "generalist.control": "generalist.run.control",
    "generalist.convert.clip_text": "generalist.convert.towers.clip_text",
    "generalist.convert.timm_block": "generalist.convert.towers.timm_block",
    "generalist.convert.timm_vit": "generalist.convert.towers.timm_vit",
    "generalist.convert.uni_perceiver": "generalist.convert.uni_perceiver.checkpoint",
    "generalist.convert.uni_perceiver_keys": "generalist.convert.uni_perceiver.keys",
    "generalist.convert.uni_perceiver_tables": "generalist.convert.uni_perceiver.tables",
    "generalist.convert.vit": "generalist.convert.towers.vit",
    "generalist.convert.vocabulary": "generalist.convert.uni_perceiver.vocabulary",
    "generalist.decode": "generalist.model.decode",
    "generalist.decode:captions": "generalist.hf.predict",
    "generalist.deepspeed_config": "generalist.train.engines.deepspeed_config",
    "generalist.deepspeed_disk": "generalist.train.engines.deepspeed_disk",
    "generalist.deepspeed_engine": "generalist.train.engines.deepspeed",
    "generalist.deepspeed_files": "generalist.train.engines.deepspeed_files",
    "generalist.deepspeed_launcher": "generalist.launchers.deepspeed",
    "generalist.detection": "generalist.hf.detection",
    "generalist.distributed": "generalist.machine.collectives",
    "generalist.encoder": "generalist.nn.encoder",
    "generalist.engine": "generalist.train.engines.base",
    "generalist.engine:LocalEngine": "generalist.train.engines.local",
    "generalist.evaluate": "generalist.evaluate.answer",
    "generalist.events": "generalist.train.events",
    "generalist.faults": "generalist.train.faults",
    "generalist.fewshot": "generalist.adapt.fewshot",
    "generalist.figures": "generalist.report.figures",
    "generalist.freeze": "generalist.train.freeze",
    "generalist.freeze:PARTS": "generalist.recipe.specs:FREEZABLE",
    "generalist.freeze:check_freeze": "generalist.recipe.specs",
    "generalist.grown": "generalist.run.grown",
    "generalist.heldout": "generalist.evaluate.heldout",
    "generalist.hf.clip_benchmark": "generalist.clients.clip_benchmark",
    "generalist.hf.features": "generalist.hf.padded",
    "generalist.hf.features:PaddedFeatures": "generalist.hf.padded:PaddedModel",
    "generalist.hf.heads": "generalist.hf.model",
    "generalist.hf.lm_eval": "generalist.clients.lm_eval",
    "generalist.hf.outputs": "generalist.hf.padded",
    "generalist.hf.outputs:DualOutput": "generalist.hf.padded",
    "generalist.initial": "generalist.train.initial",
    "generalist.interference": "generalist.train.interference",
    "generalist.interference:interference_section": "generalist.report.sections.interference",
    "generalist.kernels": "generalist.nn.attention.kernels",
    "generalist.keys": "generalist.recipe.keys",
    "generalist.launch": "generalist.machine.command_line",
    "generalist.launched": "generalist.machine.launched",
    "generalist.leakage": "generalist.evaluate.leakage",
    "generalist.lock": "generalist.machine.lock",
    "generalist.loop": "generalist.train.loop",
    "generalist.manifest": "generalist.train.checkpoints.manifest",
    "generalist.measures": "generalist.evaluate.measures",
    "generalist.mixers": "generalist.nn.mixers.table",
    "generalist.mixers:Attention": "generalist.nn.mixers.attention",
    "generalist.mixers:MLP": "generalist.nn.mixers.channel",
    "generalist.mixers:SwiGLU": "generalist.nn.mixers.channel",
    "generalist.model": "generalist.model.model",
    "generalist.model:GeneralistModel": "generalist.hf.model",
    "generalist.moe": "generalist.nn.experts.experts",
    "generalist.moe:EXPERT_MIXER": "generalist.nn.experts.placement",
    "generalist.moe:ExpertAttention": "generalist.nn.experts.mixers",
    "generalist.moe:ExpertMLP": "generalist.nn.experts.mixers",
    "generalist.moe:PARTS": "generalist.nn.experts.placement",
    "generalist.moe:PLACEMENTS": "generalist.nn.experts.placement",
    "generalist.moe:check_experts": "generalist.nn.experts.placement",
    "generalist.moe:expert_spec": "generalist.nn.experts.placement",
    "generalist.moe:first_rows": "generalist.nn.experts.mixers",
    "generalist.moe:has_experts": "generalist.nn.experts.placement",
    "generalist.moe:placed": "generalist.nn.experts.placement",
    "generalist.moe_keys": "generalist.convert.uni_perceiver.expert_keys",
    "generalist.moe_usage": "generalist.nn.experts.usage",
    "generalist.objective": "generalist.model.objective",
    "generalist.optimizer": "generalist.train.optimizer",
    "generalist.owned": "generalist.train.checkpoints.owned",
    "generalist.padded": "generalist.nn.attention.padded",
    "generalist.nn.attention.cached": "generalist.nn.attention.kv_cache",
    "generalist.nn.attention.position": "generalist.nn.attention.positions.base",
    "generalist.nn.attention.relative": "generalist.nn.attention.positions.relative",
    "generalist.nn.attention.rotary": "generalist.nn.attention.positions.rotary",
    "generalist.nn.steps": "generalist.nn.steps.base",
    "generalist.nn.steps:Merge": "generalist.nn.steps.merge",
    "generalist.parts": "generalist.nn.attention.parts",
    "generalist.plan": "generalist.train.plan",
    "generalist.pooling": "generalist.nn.readout",
    "generalist.portable": "generalist.train.engines.portable",
    "generalist.predict": "generalist.hf.predict",
    "generalist.predictions": "generalist.evaluate.predictions",
    "generalist.preflight": "generalist.run.preflight",
    "generalist.prepare": "generalist.train.prepare",
    "generalist.processor": "generalist.hf.processor",
    "generalist.profile": "generalist.train.profile",
    "generalist.projection": "generalist.report.projection",
    "generalist.prompted": "generalist.adapt.prompted",
    "generalist.prompts": "generalist.nn.prompts",
    "generalist.ranks": "generalist.machine.ranks",
    "generalist.recipe": "generalist.recipe.recipe",
    "generalist.recipe:ModelSpec": "generalist.recipe.specs",
    "generalist.recipe:OptimizerSpec": "generalist.recipe.specs",
    "generalist.recipe:RECIPES": "generalist.recipe.load",
    "generalist.recipe:_checked": "generalist.recipe.load",
    "generalist.recipe:_module": "generalist.recipe.load:module_of",
    "generalist.recipe:from_json": "generalist.recipe.json",
    "generalist.recipe:load_recipe": "generalist.recipe.load",
    "generalist.recipe:override": "generalist.recipe.keys",
    "generalist.recipe:parse": "generalist.recipe.keys",
    "generalist.recipe:read_recipe": "generalist.recipe.load",
    "generalist.recipe:to_json": "generalist.recipe.json",
    "generalist.relative": "generalist.nn.attention.positions.relative",
    "generalist.report": "generalist.report.report",
    "generalist.report_curves": "generalist.report.sections.curves",
    "generalist.report_evaluation": "generalist.report.sections.evaluation",
    "generalist.report_inputs": "generalist.report.sections.inputs",
    "generalist.report_page": "generalist.report.page",
    "generalist.report_results": "generalist.report.sections.results",
    "generalist.report_samples": "generalist.report.sections.samples",
    "generalist.report_space": "generalist.report.sections.space",
    "generalist.results": "generalist.run.results",
    "generalist.rotary": "generalist.nn.attention.positions.rotary",
    "generalist.routing": "generalist.nn.experts.routing",
    "generalist.routing:MoeSpec": "generalist.recipe.specs",
    "generalist.run": "generalist.run.train",
    "generalist.run:Interrupted": "generalist.run.attempt",
    "generalist.run:_attempt": "generalist.run.attempt:attempt",
    "generalist.run:_roll_back": "generalist.run.attempt:roll_back",
    "generalist.run:build_engine": "generalist.train.engines.build",
    "generalist.run:device_of": "generalist.train.engines.build",
    "generalist.run:evaluate_run": "generalist.run.results",
    "generalist.run:load_run": "generalist.run.results",
    "generalist.run:needs_group": "generalist.train.engines.build",
    "generalist.run:save_model": "generalist.run.results",
    "generalist.run:stop_flag": "generalist.run.attempt",
    "generalist.run:table": "generalist.run.results",
    "generalist.run:write_json": "generalist.run.results",
    "generalist.run_folder": "generalist.run.folder",
    "generalist.saved": "generalist.hf.saved",
    "generalist.sides": "generalist.model.sides",
    "generalist.sklearn": "generalist.clients.sklearn",
    "generalist.sound": "generalist.train.checkpoints.sound",
    "generalist.specs": "generalist.recipe.specs",
    "generalist.startup": "generalist.machine.startup",
    "generalist.stop_file": "generalist.machine.stop_file",
    "generalist.report.curves": "generalist.report.sections.curves",
    "generalist.report.evaluation": "generalist.report.sections.evaluation",
    "generalist.report.inputs": "generalist.report.sections.inputs",
    "generalist.report.inspect": "generalist.report.sections.inspect",
    "generalist.report.interference": "generalist.report.sections.interference",
    "generalist.report.results": "generalist.report.sections.results",
    "generalist.report.samples": "generalist.report.sections.samples",
    "generalist.report.space": "generalist.report.sections.space",
    "generalist.tasks.answer": "generalist.tasks.kinds.answer",
    "generalist.tasks.answers": "generalist.tasks.candidates.answers",
    "generalist.tasks.average_precision": "generalist.tasks.measures.average_precision",
    "generalist.tasks.base": "generalist.tasks.base.task",
    "generalist.tasks.baselines": "generalist.tasks.baselines.baselines",
    "generalist.tasks.budget": "generalist.tasks.baselines.budget",
    "generalist.tasks.candidate_set": "generalist.tasks.candidates.base",
    "generalist.tasks.candidates": "generalist.tasks.candidates.names",
    "generalist.tasks.captioning": "generalist.tasks.measures.captioning",
    "generalist.tasks.classify": "generalist.tasks.kinds.classify",
    "generalist.tasks.codebook": "generalist.tasks.candidates.codebook",
    "generalist.tasks.describe": "generalist.tasks.kinds.describe",
    "generalist.tasks.detect": "generalist.tasks.kinds.regions.detect",
    "generalist.tasks.examples": "generalist.tasks.base.examples",
    "generalist.tasks.features": "generalist.tasks.baselines.features",
    "generalist.tasks.fill": "generalist.tasks.kinds.fill",
    "generalist.tasks.forecast": "generalist.tasks.kinds.forecast",
    "generalist.tasks.guesses": "generalist.tasks.baselines.guesses",
    "generalist.tasks.learn": "generalist.tasks.base.learn",
    "generalist.tasks.likelihood": "generalist.tasks.candidates.likelihood",
    "generalist.tasks.lines": "generalist.tasks.measures.lines",
    "generalist.tasks.marks": "generalist.tasks.measures.marks",
    "generalist.tasks.methods": "generalist.tasks.baselines.methods",
    "generalist.tasks.metrics": "generalist.tasks.measures.metrics",
    "generalist.tasks.mixup": "generalist.tasks.base.mixup",
    "generalist.tasks.multilabel": "generalist.tasks.kinds.multilabel",
    "generalist.tasks.naive": "generalist.tasks.baselines.naive",
    "generalist.tasks.number_sets": "generalist.tasks.candidates.number_sets",
    "generalist.tasks.ordinary": "generalist.tasks.baselines.ordinary",
    "generalist.tasks.origin": "generalist.tasks.kinds.origin",
    "generalist.tasks.plain": "generalist.tasks.baselines.plain",
    "generalist.tasks.reading": "generalist.tasks.base.reading",
    "generalist.tasks.regress": "generalist.tasks.kinds.regress",
    "generalist.tasks.restore": "generalist.tasks.kinds.restore",
    "generalist.tasks.retrieve": "generalist.tasks.kinds.retrieve",
    "generalist.tasks.ridge": "generalist.tasks.candidates.ridge",
    "generalist.tasks.saved": "generalist.tasks.registry.load",
    "generalist.tasks.segment": "generalist.tasks.kinds.regions.segment",
    "generalist.tasks.table": "generalist.tasks.registry.table",
    "generalist.tasks.templates": "generalist.tasks.candidates.templates",
    "generalist.tasks.told": "generalist.tasks.base.told",
    "generalist.trained_on": "generalist.evaluate.trained_on",
    "generalist.tuned": "generalist.adapt.kept",
    "generalist.tuned:weights_hash": "generalist.hf.saved",
    "generalist.unread": "generalist.evaluate.unread",
    "generalist.written": "generalist.evaluate.written",
    "generalist.zero_shot": "generalist.evaluate.zero_shot",
    "tokenizers_mod.aside": "generalist.tokenizers_mod.base.tokenizer",
    "tokenizers_mod.audio": "generalist.tokenizers_mod.audio.audio",
    "tokenizers_mod.augment": "generalist.tokenizers_mod.vision.augment",
    "tokenizers_mod.base": "generalist.tokenizers_mod.base.base",
    "tokenizers_mod.bins": "generalist.tokenizers_mod.numbers.bins",
    "tokenizers_mod.bpe": "generalist.tokenizers_mod.text.bpe",
    "tokenizers_mod.bpe_hf": "generalist.tokenizers_mod.text.bpe_hf",
    "tokenizers_mod.cached": "generalist.tokenizers_mod.base.cached",
    "tokenizers_mod.depth": "generalist.tokenizers_mod.vision.depth",
    "tokenizers_mod.flexi": "generalist.tokenizers_mod.vision.flexi",
    "tokenizers_mod.frames": "generalist.tokenizers_mod.vision.frames",
    "tokenizers_mod.graph": "generalist.tokenizers_mod.geometry.graph",
    "tokenizers_mod.graph_raw": "generalist.tokenizers_mod.geometry.graph_raw",
    "tokenizers_mod.image": "generalist.tokenizers_mod.vision.image",
    "tokenizers_mod.imu": "generalist.tokenizers_mod.numbers.imu",
    "tokenizers_mod.meta_transformer": "generalist.tokenizers_mod.published.meta_transformer",
    "tokenizers_mod.modalities": "generalist.tokenizers_mod.base.modalities",
    "tokenizers_mod.number": "generalist.tokenizers_mod.numbers.number",
    "tokenizers_mod.objects": "generalist.tokenizers_mod.regions.objects",
    "tokenizers_mod.padded": "generalist.tokenizers_mod.base.padded",
    "tokenizers_mod.points": "generalist.tokenizers_mod.geometry.points",
    "tokenizers_mod.pretrained_text": "generalist.tokenizers_mod.text.pretrained_text",
    "tokenizers_mod.proposers": "generalist.tokenizers_mod.regions.proposers",
    "tokenizers_mod.raw": "generalist.tokenizers_mod.base.raw",
    "tokenizers_mod.region": "generalist.tokenizers_mod.regions.region",
    "tokenizers_mod.schema": "generalist.tokenizers_mod.tables.schema",
    "tokenizers_mod.series": "generalist.tokenizers_mod.numbers.series",
    "tokenizers_mod.slot": "generalist.tokenizers_mod.numbers.slot",
    "tokenizers_mod.spectral": "generalist.tokenizers_mod.vision.spectral",
    "tokenizers_mod.stem": "generalist.tokenizers_mod.vision.stem",
    "tokenizers_mod.summary": "generalist.tokenizers_mod.text.summary",
    "tokenizers_mod.table": "generalist.tokenizers_mod.tables.table",
    "tokenizers_mod.text": "generalist.tokenizers_mod.text.text",
    "tokenizers_mod.text_tensors": "generalist.tokenizers_mod.text.text_tensors",
    "tokenizers_mod.text_tokens": "generalist.tokenizers_mod.text.text_tokens",
    "tokenizers_mod.thermal": "generalist.tokenizers_mod.vision.thermal",
    "tokenizers_mod.video": "generalist.tokenizers_mod.vision.video",
    "tokenizers_mod.views": "generalist.tokenizers_mod.base.views",
    "tokenizers_mod.xray": "generalist.tokenizers_mod.vision.xray",
}


def moved(path: str) -> str:
    """ "module" or "module:Class" as it is called today; what never moved comes back as it is."""
    module, colon, name = path.partition(":")
    new, _, new_name = MOVED.get(path, MOVED.get(module, "")).partition(":")
    if not new:
        parent = next((folder for folder in FOLDERS if module.startswith(f"{folder}.")), "")
        if not parent and module.split(".")[0] in TOP:
            return moved(f"generalist.{path}")
        new = MOVED[parent] + module.removeprefix(parent) if parent else module
    return f"{new}{colon}{new_name or name}"


def old_name(module: str, name: str) -> Any:
    """What `from module import name` gave before `module` became a room. AttributeError where it gave nothing."""
    package = sys.modules.get(module)
    room = package is not None and "__path__" in vars(package)
    if not name.startswith("__") and not (room and find_spec(f"{module}.{name}")):
        new, _, new_name = moved(f"{module}:{name}").partition(":")
        found = import_module(new)
        if new != module and hasattr(found, new_name):
            return getattr(found, new_name)
    raise AttributeError(f"module '{module}' has no attribute '{name}'")


class OldNames(MetaPathFinder, Loader):
    """Finds old modules: the new one under its old name too, or names gathered from where they went."""

    def find_spec(
        self, fullname: str, path: Iterable[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top = fullname.split(".")[0]
        known = fullname in TOP or fullname in MOVED or (top in TOP and moved(fullname) != fullname)
        if not known or (top in TOP and fullname != top and not self._owns(sys.modules.get(top))):
            return None
        own = None if fullname in TOP else find_spec(moved(fullname))
        if own is None and fullname not in TOP:
            return None
        return ModuleSpec(fullname, self, origin=own.origin if own else None, is_package=fullname in TOP)

    @staticmethod
    def _owns(package: ModuleType | None) -> bool:
        """Whether a top-level package is the stand-in made here, or the folder of this checkout."""
        root = sys.modules[__name__.partition(".")[0]]
        folders = {str(folder) for folder in getattr(package, "__path__", ())}
        return folders <= {f"{home}/{package.__name__}" for home in root.__path__} if package else False

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        if spec.name in TOP:
            return ModuleType(spec.name)
        if not any(old.startswith(f"{spec.name}:") for old in MOVED):
            module = import_module(moved(spec.name))
            spec.loader_state = module.__spec__
            return module
        made = ModuleType(spec.name)
        made.__getattr__ = lambda name: old_name(spec.name, name)  # type: ignore[method-assign]
        return made

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to run; a new module that was lent its old name gets its own specification back."""
        spec = module.__spec__
        if spec is not None and isinstance(spec.loader_state, ModuleSpec):
            module.__spec__ = spec.loader_state

    def get_code(self, fullname: str) -> Any:
        """For `python -m OLD.NAME`."""
        spec = find_spec(moved(fullname))
        assert spec is not None and spec.loader is not None
        return spec.loader.get_code(moved(fullname))  # type: ignore[attr-defined]


def install() -> None:
    """Old imports work from here on (idempotent)."""
    if not any(type(finder).__name__ == OldNames.__name__ for finder in sys.meta_path):
        sys.meta_path.append(OldNames())
