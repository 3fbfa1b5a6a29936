"""What a conversion did with every tensor of a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from generalist.data.base.errors import UserError
from generalist.hf.auto import MODEL_TYPE


@dataclass
class Report:
    """kind: of the file. loaded: tensors of the model that were filled. missing: tensors of the model that the file
    lacks; unexpected: tensors of the file that nothing here takes; reshaped: tensors brought to another size, and
    how; unused: tensors known to be without effect; notes: decisions, one line each; dtype: of the file's numbers
    where all have one. The model's are float32.
    """

    kind: str
    loaded: int = 0
    parameters: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    dtype: str = "float32"

    def __str__(self) -> str:
        lines = [f"{self.kind}: {self.loaded} tensors, {self.parameters:,} parameters"]
        for name in ("missing", "unexpected", "reshaped", "unused"):
            found = vars(self)[name]
            lines.append(f"  {name}: {len(found)}" + "".join(f"\n    {item}" for item in found[:20]))
            if len(found) > 20:
                lines.append(f"    ... and {len(found) - 20} more")
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])

    @property
    def brief(self) -> str:
        """In one line."""
        told = f"{self.kind}: {self.loaded} tensors, {self.parameters:,} parameters taken"
        return f"{told}; {len(self.unexpected)} of it left behind, {len(self.notes)} begin anew"

    def write(self, folder: Path) -> None:
        (folder / "conversion.json").write_text(json.dumps(asdict(self), indent=1))


def fill(model: nn.Module, tensors: Mapping[str, Tensor], report: Report, lenient: bool = False) -> None:
    """Copy tensors into a model bit by bit; UserError naming the first that does not fit or is not of real numbers.

    A missing tensor is an error unless `lenient`, and is then left as initialised; both are in the report.
    """
    state = model.state_dict()
    real_numbers({name: value for name, value in tensors.items() if name in state}, report)
    wrong = [
        f"{name} {tuple(value.shape)} instead of {tuple(state[name].shape)}"
        for name, value in tensors.items()
        if name in state and value.shape != state[name].shape
    ]
    if wrong:
        raise UserError(f"{report.kind}: {len(wrong)} tensors have another size than the model: {wrong[0]}")
    report.unexpected += [name for name in tensors if name not in state]
    report.missing += [name for name in state if name not in tensors]
    if report.missing and not lenient:
        more = f" and {len(report.missing) - 1} more" if len(report.missing) > 1 else ""
        raise UserError(f"{report.kind}: the file lacks {report.missing[0]}{more}; --lenient keeps fresh ones there")
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            report.notes.append(f"{name} holds NaN or infinite values")
    model.load_state_dict(dict(tensors), strict=False)
    report.loaded += sum(name in state for name in tensors)
    report.parameters += sum(p.numel() for p in model.parameters())


def real_numbers(tensors: Mapping[str, Tensor], report: Report) -> None:
    """Say in the report what numbers the tensors are of; UserError for whole, complex and quantised ones."""
    for name, value in tensors.items():
        if not value.is_floating_point() or value.is_quantized:
            kind = str(value.dtype).removeprefix("torch.")
            raise UserError(f"{report.kind}: {name} is of {kind} numbers, no weights; save them as float32 first")
    kinds = sorted({str(value.dtype).removeprefix("torch.") for value in tensors.values()})
    if kinds and kinds != ["float32"]:
        report.dtype = kinds[0] if len(kinds) == 1 else "float32"
        rounded = ", those of float64 rounded" if "float64" in kinds else ""
        note = f"the file's numbers are {' and '.join(kinds)}, the model's float32{rounded}"
        report.notes += [] if note in report.notes else [note]


def positive(**options: int | list[int]) -> None:
    """UserError for an option below 0 (0 = not given)."""
    for name, value in options.items():
        if min(value if isinstance(value, list) else [value]) < 0:
            raise UserError(f"--{name.replace('_', '-')} is {value}; give a positive number")


FILES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
# what a model of an earlier conversion may have left: weights and what belongs to them
TOLD = ("conversion.json", "parity.json")
LEFT = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model*.json", *TOLD)


@dataclass
class Origin:
    """What a model was converted from: the kind of conversion, the checkpoint and the options that were given."""

    kind: str
    checkpoint: Path
    options: dict[str, Any] = field(default_factory=dict)


def save(model: PreTrainedModel, processor: Any, report: Report, out: Path, origin: Origin | None = None) -> None:
    """Model, processor and report into one folder, which may hold an earlier model of ours and no other.

    origin: the model is compared with it, and the folder gets a passport (`generalist.convert.parity`).
    """
    from generalist.convert import parity  # which knows every kind of conversion

    passport = None
    try:
        clear(out, report)
        if origin is not None:
            passport = parity.measured(origin.kind, origin.checkpoint, origin.options, model, processor)
            report.notes.append(passport.told())
        model.save_pretrained(out)
        processor.save_pretrained(out)
        report.write(out)
        if passport is not None:
            parity.write(passport, out)
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error.strerror or error}); choose another --out") from error


def clear(out: Path, report: Report) -> None:
    """Make the folder and remove an earlier model's weights; UserError where they are not of this framework."""
    if out.suffix in FILES and not out.is_dir():
        raise UserError(f"--out {out} is the name of a file, a model is a folder: leave {out.suffix} out")
    out.mkdir(parents=True, exist_ok=True)
    old = sorted({path for pattern in LEFT for path in out.glob(pattern)})
    if old or (out / "config.json").exists():
        try:
            ours = json.loads((out / "config.json").read_text(encoding="utf-8")).get("model_type") == MODEL_TYPE
        except (OSError, ValueError, AttributeError):
            ours = False
        if not ours:
            shown = old[0].name if old else "config.json"
            raise UserError(f"{out} holds {shown} of another model, which is not overwritten; choose another --out")
    for path in old:
        path.unlink()
    removed = [path.name for path in old if path.name not in ("model.safetensors", *TOLD)]
    if removed:
        report.notes.append(f"removed, of the model that was in the folder: {', '.join(removed)}")
