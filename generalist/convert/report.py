"""What a conversion did with every tensor of a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from data.errors import UserError


@dataclass
class Report:
    """kind: of the file. loaded: tensors of the model that were filled. missing: tensors of the model that the file
    lacks; unexpected: tensors of the file that nothing here takes; reshaped: tensors brought to another size, and
    how; unused: tensors known to be without effect; notes: decisions, one line each.
    """

    kind: str
    loaded: int = 0
    parameters: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.kind}: {self.loaded} tensors, {self.parameters:,} parameters"]
        for name in ("missing", "unexpected", "reshaped", "unused"):
            found = getattr(self, name)
            lines.append(f"  {name}: {len(found)}" + "".join(f"\n    {item}" for item in found[:20]))
            if len(found) > 20:
                lines.append(f"    ... and {len(found) - 20} more")
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])

    def write(self, folder: Path) -> None:
        (folder / "conversion.json").write_text(json.dumps(asdict(self), indent=1))


def fill(model: nn.Module, tensors: Mapping[str, Tensor], report: Report, lenient: bool = False) -> None:
    """Copy tensors into a model bit by bit; UserError naming the first that does not fit.

    A missing tensor is an error unless `lenient`, and is then left as initialised; both are in the report.
    """
    state = model.state_dict()
    wrong = [
        f"{name} {tuple(value.shape)} instead of {tuple(state[name].shape)}"
        for name, value in tensors.items()
        if name in state and value.shape != state[name].shape
    ]
    if wrong:
        raise UserError(f"{report.kind}: {len(wrong)} tensors have another size than the model: {wrong[0]}")
    report.missing += [name for name in state if name not in tensors]
    if report.missing and not lenient:
        more = f" and {len(report.missing) - 1} more" if len(report.missing) > 1 else ""
        raise UserError(f"{report.kind}: the file lacks {report.missing[0]}{more}; --lenient keeps fresh ones there")
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            report.notes.append(f"{name} holds NaN or infinite values")
    model.load_state_dict(dict(tensors), strict=False)
    report.loaded += sum(name in state for name in tensors)
    report.parameters += sum(p.numel() for p in model.parameters())


def save(model: nn.Module, processor, report: Report, out: Path) -> None:
    """Model, processor and report into one folder."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(out)  # type: ignore[operator]
        processor.save_pretrained(out)
        report.write(out)
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error.strerror or error}); choose another --out") from error
