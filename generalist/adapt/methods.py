"""A trained model and a little labelled data: prompts, linear probe, LoRA or full fine-tuning, over several draws.

zero-shot   nothing is trained; the classes are ranked by their names
prompts     deep prompts, summary bias, norms and a linear head (Uni-Perceiver, 2112.01522; spec section 4)
probe       logistic regression on the frozen features
lora        low-rank updates of the encoder's matrices (2106.09685), through peft
full        every weight
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from generalist.adapt.fewshot import draw
from generalist.data.base.errors import UserError, nearest
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.source import Records
from generalist.data.stream.stream import Feed, Steps, loader
from generalist.evaluate import answer as evaluate
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.model.objective import Objective
from generalist.nn.prompts import prompt_tuning
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.names import Names
from generalist.tasks.kinds.classify import Classify
from generalist.tokenizers_mod.base.base import Modality
from generalist.train.engines.local import LocalEngine
from generalist.train.loop import train
from generalist.train.optimizer import parameter_groups

LORA_TARGETS = r"encoder\..*(qkv|out|up|down)"


@dataclass
class Tuning:
    """How to adapt. lr 0 takes the method's default; prompts: vectors a layer; rank: of LoRA's updates.

    shots: records a class; fraction: share of each class (spec section 4); neither: all of them.
    random_encoder: the same on an encoder of fresh weights, the control of what holds the encoder fixed.
    """

    method: str = "prompts"
    shots: int | None = None
    fraction: float | None = None
    steps: int = 200
    warmup: int = 20
    batch: int = 32
    lr: float = 0.0
    prompts: int = 10
    rank: int = 8
    seed: int = 0
    device: str = "cpu"
    random_encoder: bool = False

    @property
    def title(self) -> str:
        return f"{self.method}, random encoder" if self.random_encoder else self.method

    @property
    def place(self) -> str:
        """Method and size as part of a file's name."""
        size = f"{self.shots}-shots" if self.shots else f"{self.fraction:g}" if self.fraction else "all"
        return f"{self.title.replace(', ', '-').replace(' ', '-')}-{size}"


@dataclass
class Tuned:
    """One draw's outcome. log_p: Float[n K] of the test records, labels: Int[n]; trained: counts by part.

    adapter: settings and tensors of LoRA before they were merged; changed: `model` gives these answers.
    """

    model: GeneralistModel
    metrics: dict[str, float]
    log_p: Tensor
    labels: Tensor
    samples: int
    trained: dict[str, int] = field(default_factory=dict)
    adapter: tuple[Any, dict[str, Tensor]] | None = None
    changed: bool = True


def check_method(name: str) -> None:
    """UserError for a method that there is not."""
    if name not in METHODS:
        raise UserError(f"method {name!r}; {nearest(name, METHODS)} (valid: {', '.join(METHODS)})")


def bind(model: GeneralistModel, modalities: dict[str, Modality], task: Classify, training: Records) -> None:
    """Give the task the model's modalities, a scale of the model and the candidates of its training records."""
    task.scale = task.scale if task.scale in model.log_scales else model.config.zero_shot_scale
    task.bind(modalities, None, training.info)
    task.adopt(task.candidate_set(training))


def tune(
    model: GeneralistModel,
    modalities: dict[str, Modality],
    task: Classify,
    training: Records,
    test: Records,
    how: Tuning,
) -> Tuned:
    """Adapt a copy of `model` to the task's training records, score it on `test`. `model` itself is not touched."""
    check_method(how.method)
    bind(model, modalities, task, training)
    chosen = draw(training, task.index, how.shots, how.fraction, how.seed)
    torch.manual_seed(how.seed)
    if how.random_encoder:
        model = with_random_encoder(model)
    return METHODS[how.method](model, modalities, task, chosen, test, how)


def _scored(objective: Objective, task: Classify, test: Records, samples: int, trained: dict[str, int]) -> Tuned:
    answers = evaluate.answer(task, test, objective)
    model = objective.model
    assert isinstance(model, GeneralistModel)
    log_p = answers.log_p(slice(None))
    metrics = {"accuracy": float((log_p.argmax(-1) == answers.labels).float().mean())}
    return Tuned(model, metrics, log_p.cpu(), answers.labels.cpu(), samples, trained)


def _copy(model: GeneralistModel, **changes: Any) -> GeneralistModel:
    """The model with another configuration; weights that both have are taken over, others start afresh."""
    settings = model.config.to_dict()
    for name in ("model_type", "auto_map", "architectures", "transformers_version", "dtype"):
        settings.pop(name, None)
    copy = GeneralistModel(GeneralistConfig(**{**settings, **changes}))
    missing, unexpected = copy.load_state_dict(model.state_dict(), strict=False)
    new = ("prompts.", "linear_heads.")
    if unexpected or any(not (name.startswith(new) or name.endswith("spe_bias")) for name in missing):
        raise UserError("the adapted model does not fit the one it starts from; is it of this version?")
    return copy


def with_random_encoder(model: GeneralistModel) -> GeneralistModel:
    """A copy whose shared encoder is drawn anew, as before any training; tokenizers and all else are the model's."""
    copy = _copy(model)
    fresh = GeneralistModel(copy.config).encoder
    copy.encoder.load_state_dict(fresh.state_dict())
    return copy


def _objective(model: GeneralistModel, modalities: dict[str, Modality], task: Classify, device: str) -> Objective:
    assert task.candidates is not None
    return Objective(model.to(device), {task.name: task.candidates}, modalities)


def _fit(objective: Objective, task: Classify, chosen: Records, how: Tuning, lr: float) -> dict[str, int]:
    """Train what requires a gradient: AdamW (.9, .95), cosine, as in the published prompt runs (spec section 4)."""
    trained = {n: p.numel() for n, p in objective.model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(parameter_groups(objective, 0.0), lr, (0.9, 0.95), eps=1e-6)
    engine = LocalEngine(objective, optimizer, torch.device(how.device), clip=1.0)
    batch = min(how.batch, len(chosen))
    schedule = Schedule([task.name], [1.0], how.seed)
    steps = Steps({task.name: Feed(chosen, task.example, task.collate, batch)}, schedule, how.seed)
    objective.train()
    train(engine, loader(steps, 0, how.steps), {task.name: task}, schedule, 0, how.steps, how.lr or lr, how.warmup)
    objective.eval()
    return trained


def zero_shot(
    model: GeneralistModel, modalities: dict[str, Modality], task: Classify, chosen: Records, test: Records, how: Tuning
) -> Tuned:
    return _scored(_objective(_copy(model), modalities, task, how.device), task, test, 0, {})


def prompts(
    model: GeneralistModel, modalities: dict[str, Modality], task: Classify, chosen: Records, test: Records, how: Tuning
) -> Tuned:
    classes = len(task.among_kind(Names).names)
    settings = {name: dict(values) for name, values in (model.config.modalities or {}).items()}
    for name, modality in model.modalities.items():
        if "spe_bias" in modality.settings():
            settings[name]["spe_bias"] = True
    heads = {**(model.config.linear_heads or {}), task.scale: classes}
    copy = _copy(model, prompts=how.prompts, linear_heads=heads, modalities=settings)
    trained = prompt_tuning(copy).counts
    objective = _objective(copy, modalities, task, how.device)
    _fit(objective, task, chosen, how, 3e-3)
    return _scored(objective, task, test, len(chosen), trained)


def full(
    model: GeneralistModel, modalities: dict[str, Modality], task: Classify, chosen: Records, test: Records, how: Tuning
) -> Tuned:
    objective = _objective(_copy(model), modalities, task, how.device)
    for parameter in objective.model.parameters():
        parameter.requires_grad_(True)
    counts = _fit(objective, task, chosen, how, 1e-3)
    return _scored(objective, task, test, len(chosen), {"all weights": sum(counts.values())})


def lora(
    model: GeneralistModel, modalities: dict[str, Modality], task: Classify, chosen: Records, test: Records, how: Tuning
) -> Tuned:
    """The updates are merged into the weights at the end, so that the result is an ordinary model."""
    try:
        import peft
    except ImportError as error:
        raise UserError("LoRA needs peft: pip install generalist-encoder[lora]") from error
    copy = _copy(model)
    settings = peft.LoraConfig(r=how.rank, lora_alpha=2 * how.rank, target_modules=LORA_TARGETS)
    with warnings.catch_warnings():  # peft asks transformers by an older name
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        adapted = peft.PeftModel(copy, settings)
    objective = _objective(copy, modalities, task, how.device)
    counts = _fit(objective, task, chosen, how, 3e-3)
    tensors = {n: t.detach().cpu().clone() for n, t in peft.get_peft_model_state_dict(adapted).items()}
    objective.model = adapted.merge_and_unload()
    tuned = _scored(objective, task, test, len(chosen), {"low-rank updates": sum(counts.values())})
    tuned.adapter = settings, tensors
    return tuned


@torch.no_grad()
def features(model: GeneralistModel, task: Task, records: Records) -> tuple[Tensor, Tensor]:
    """Unit features Float[n D] and labels Int[n] of labelled records."""
    found = [(model.features(b.inputs.to(model.device)), b.inputs.labels) for b in evaluate.batches(task, records)]
    x = nn.functional.normalize(torch.cat([f.float() for f, _ in found]), dim=-1)
    return x, torch.cat([y for _, y in found if y is not None])


def probe(
    model: GeneralistModel, modalities: dict[str, Modality], task: Classify, chosen: Records, test: Records, how: Tuning
) -> Tuned:
    from sklearn.linear_model import LogisticRegression

    copy = _copy(model).to(how.device).eval()
    x, y = features(copy, task, chosen)
    held, labels = features(copy, task, test)
    classes = len(task.among_kind(Names).names)
    if len(y.unique()) < 2:
        raise UserError("a linear probe needs training records of at least two classes")
    fitted = LogisticRegression(C=100.0, max_iter=1000).fit(x.cpu().numpy(), y.numpy())
    log_p = torch.full((len(held), classes), -float("inf"))
    log_p[:, torch.as_tensor(fitted.classes_)] = torch.from_numpy(fitted.predict_log_proba(held.cpu().numpy())).float()
    metrics = {"accuracy": float((log_p.argmax(-1) == labels).float().mean())}
    trained = {"linear probe": (x.shape[1] + 1) * classes}
    return Tuned(copy, metrics, log_p, labels, len(chosen), trained, changed=False)


METHODS: dict[str, Callable[..., Tuned]] = {
    "zero-shot": zero_shot,
    "prompts": prompts,
    "probe": probe,
    "lora": lora,
    "full": full,
}
FROZEN = ("prompts", "probe", "lora")  # methods that build on the encoder's own weights
