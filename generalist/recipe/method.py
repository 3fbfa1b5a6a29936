"""What is trained besides the law: the recipe's keys `method.kind` and those of each method."""

from __future__ import annotations

from dataclasses import dataclass

from generalist.data.base.errors import UserError, nearest

METHOD_NAMES = ("distill", "sparse", "elastic")  # those of `generalist.train.methods.table`
NEEDS = {
    "distill": "distill.teacher=FOLDER, the model that teaches,",
    "sparse": "model.sparsity, such as .01,",
    "elastic": "model.elastic=true",
}


@dataclass
class MethodSpec:
    """kind: a method's name, "none" for the law alone, "auto" for the one whose keys are set."""

    kind: str = "auto"


@dataclass
class DistillSpec:
    """Knowledge distillation within the law (1503.02531): a saved model ranks each step's own candidates too.

    teacher: its folder (a run's or a model's), "" for none; weight: of what is added to the loss; temperature: by which
    both models' scores are divided before they are compared.
    """

    teacher: str = ""
    weight: float = 1.0
    temperature: float = 2.0


def chosen(method: MethodSpec, distill: DistillSpec, sparsity: float = 0.0, elastic: bool = False) -> str:
    """The name of the method that the keys ask for, "" for none. UserError for keys that cannot work."""
    valid = ("auto", "none", *METHOD_NAMES)
    if method.kind not in valid:
        raise UserError(f"method.kind={method.kind!r}; {nearest(method.kind, valid)} (valid: {', '.join(valid)})")
    if not 0 <= distill.weight < float("inf"):
        raise UserError(f"distill.weight={distill.weight}: it must lie in 0 <= weight < inf")
    if not 0 < distill.temperature < float("inf"):
        raise UserError(f"distill.temperature={distill.temperature}: it must lie in 0 < temperature < inf")
    asked = {"distill": bool(distill.teacher), "sparse": sparsity > 0, "elastic": elastic}
    if method.kind in asked and not asked[method.kind]:
        raise UserError(f"method.kind={method.kind} needs {NEEDS[method.kind].rstrip(',')}")
    if method.kind == "auto":
        found = [name for name, wanted in asked.items() if wanted]
        if len(found) > 1:
            raise UserError(
                f"{NEEDS[found[0]]} and {NEEDS[found[1]]} are two methods; leave one out or set method.kind"
            )
        return found[0] if found else ""
    return "" if method.kind == "none" else method.kind
