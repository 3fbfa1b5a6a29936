"""MT-AdamW: task-balanced gradient normalisation (Uni-Perceiver v2, 2211.09808; spec 2.5), and its set-up.

    g = omega_k * grad / ||grad||                     the whole gradient of the step's one task k
    m = b1*m + (1-b1)/s_k * g
    n = b2*n + (1-b2)/s_k * g*g
    theta -= lr * (m / (sqrt(n) + eps) + weight_decay * theta)

With omega = 1 the expected m is the sum of the tasks' normalised gradients whatever their shares s_k,
and a task's loss scale cancels. One m and one n are shared by all tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from generalist.nn.mixers.base import Mixer
from generalist.recipe.recipe import Recipe
from generalist.recipe.specs import OptimizerSpec
from generalist.train.engines.flat import MOMENTS, Flat, Run

UNCORRECTED = 2**24 - 1  # steps after which the moments need no correction: b ** steps is 0 in any precision


class BalancedAdamW(Optimizer):
    """MT-AdamW. Call `task(share, omega)` before `step()`; without it a step is that of a single task.

    bias_correction and decoupled weight decay are omitted in the paper and are switches here.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        bias_correction: bool = True,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.bias_correction = bias_correction
        self.share, self.omega = 1.0, 1.0
        self.flat = Flat()
        # where this optimiser sees only a part of the parameters a call (ZeRO), who knows the norm of them all
        self.whole_norm: Callable[[], float] | None = None

    def task(self, share: float = 1.0, omega: float = 1.0) -> None:
        """The task of the coming step: its sampling ratio s_k in (0, 1] and the length omega_k of its gradient."""
        if not 0 < share <= 1:
            raise ValueError(f"a task's share must lie in (0, 1], got {share}")
        self.share, self.omega = share, omega

    def gradient_norm(self, gradients: list[Tensor]) -> Tensor:
        """L2 norm of the whole gradient over all parameters, also where only a part of them is here: [1]."""
        if self.whole_norm is not None:
            return torch.tensor([self.whole_norm()], dtype=torch.float32, device=gradients[0].device)
        norms = torch.stack([norm.to(gradients[0].device) for norm in torch._foreach_norm(gradients)])
        return (norms**2).sum().reshape(1).sqrt()

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        runs = [(group, run) for group in self.param_groups for run in self._runs(group)]
        if not runs:
            return loss
        norm = self.gradient_norm([run.gradient for _, run in runs])
        factor = self.omega / norm.clamp(min=torch.finfo(torch.float32).tiny)
        for group, run in runs:
            self._move(group, run, factor.to(run.gradient.device))
        return loss

    def _runs(self, group: dict) -> list[Run]:
        """What has a gradient. Sparse-in-time parameters (another task's tokenizer) keep their own step count."""
        params = [p for p in group["params"] if p.grad is not None]
        for p in params:
            if not self.state[p]:
                self.state[p] = {"step": 0} | {key: torch.zeros_like(p, dtype=torch.float32) for key in MOMENTS}
        return self.flat.runs(params, [self.state[p] for p in params], bool(group["weight_decay"]))

    def _move(self, group: dict, run: Run, factor: Tensor) -> None:
        """One step of the parameters of a run by torch's own AdamW, in one pass over them.

        It adds g/s to both moments, so n goes in as n/s: (1-b2) (g/s)^2 = (1-b2) g*g/s / s. Then the root is short by
        sqrt(s), and with eps and lr by as much the move is the same.
        """
        root = math.sqrt(self.share)
        mean, square = run.moments
        gradient = run.gradient * (factor / self.share)
        if self.share != 1:
            square /= self.share
        moves = torch.zeros_like(mean)
        count = int(run.states[0]["step"]) if self.bias_correction else UNCORRECTED
        before = torch.tensor(float(count), device=mean.device)
        b1, b2 = group["betas"]
        adamw(
            [moves], [gradient], [mean], [square], [], [before], fused=True,
            amsgrad=False, beta1=b1, beta2=b2, lr=group["lr"] / root, weight_decay=0.0,
            eps=group["eps"] / root, maximize=False,
        )  # fmt: skip
        if self.share != 1:
            square *= self.share
        run.move(moves, 1 - group["lr"] * group["weight_decay"])
        for state in run.states:
            state["step"] += 1


def parameter_groups(model: nn.Module, weight_decay: float, factors: dict[str, float] | None = None) -> list[dict]:
    """Decay on matrices of linears and convolutions only; none on embeddings, norms, biases, gains, scales.

    factors: {beginning of parameters' names: factor of the learning rate}, 1 for all others.
    """
    decayed: set[int] = set()
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            decayed.add(id(module.weight))
        if isinstance(module, Mixer):
            decayed.update(id(weight) for weight, _ in module.matrices())
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = next((f for start, f in (factors or {}).items() if name.startswith(start)), 1.0)
            groups.setdefault((factor, id(parameter) in decayed), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda item: (-item[0][0], not item[0][1]))
    return [
        {"params": params, "weight_decay": weight_decay if decay else 0.0} | ({} if factor == 1 else {"factor": factor})
        for (factor, decay), params in ordered
    ]


def set_rate(optimizer: Optimizer, lr: float) -> None:
    """The learning rate of the coming step."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("factor", 1.0)


def shares_factors(recipe: Recipe) -> dict[str, float]:
    """Factors that let a draw move a tokenizer as far as a step of its tasks alone would: {start of its name: factor}.

    Between two draws the momentum of a tokenizer goes on with gradient zero, and its second moment is a mean over
    all steps, a share s of the squared gradient: AdamW moves it 1 / sqrt(s) times as far a draw, MT-AdamW 1 / s times.
    Factors are rounded to half an octave, so that the optimiser's groups stay few.
    """
    total = sum(task.share for task in recipe.tasks)
    used: dict[str, float] = {}
    for task in recipe.tasks:
        for modality in task.used():
            used[modality] = used.get(modality, 0.0) + task.share / total
    power = 0.5 if recipe.optimizer.kind == "adamw" else 1.0
    factors = {name: 2 ** (round(2 * power * math.log2(min(1.0, share))) / 2) for name, share in used.items()}
    return {f"model.tokenizers.{name}.": factor for name, factor in factors.items() if factor < 1}


def build_optimizer(recipe: Recipe, objective: nn.Module, fused: bool = False) -> Optimizer:
    """The recipe's optimiser over everything in `objective` that trains. fused: AdamW in one pass over its numbers."""
    spec = recipe.optimizer
    groups = parameter_groups(objective, spec.weight_decay, shares_factors(recipe) if spec.by_share else None)
    if spec.kind == "adamw":
        return torch.optim.AdamW(groups, spec.lr, spec.betas, spec.eps, fused=fused)
    return BalancedAdamW(groups, spec.lr, spec.betas, spec.eps, bias_correction=spec.bias_correction)


def learning_rate(
    step: int, total: int, warmup: int, floor: float = 0.01, schedule: str = "cosine", decay: float = 0.2
) -> float:
    """Factor of the base rate: linear warm-up, then by `schedule` (`OptimizerSpec`), never below `floor` (spec 1.12).

    decay: the last part of all steps, in which "wsd" falls in a line (warm-up, stable, decay: 2404.06395 section 4).
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return max(floor, 1 - progress)
    if schedule == "wsd":
        return max(floor, min(1.0, (total - step) / max(1.0, decay * total)))
    return max(floor, 0.5 * (1 + math.cos(math.pi * progress)))


def rates(spec: OptimizerSpec, steps: int) -> Callable[[int], float]:
    """step -> the factor of the base rate."""
    return partial(
        learning_rate,
        total=steps,
        warmup=spec.warmup,
        floor=spec.floor,
        schedule=spec.schedule,
        decay=spec.decay,
    )
