"""A saved model as programs of other runtimes, one a modality: padded tensors in, unit features out.

    onnx            FOLDER/text.onnx ...    onnxruntime and whatever else reads ONNX
    torch-export    FOLDER/text.pt2 ...     torch.export.load, AOTInductor
    torchao         a model folder whose linear weights are int8, loaded by AutoModel

Every program is run again on inputs of another number and size, and what it says is compared with the model.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.functional import normalize

from generalist.data.base.errors import UserError, nearest
from generalist.hf.model import GeneralistModel
from generalist.hf.processor import GeneralistProcessor
from generalist.model.sides import INPUT
from generalist.tokenizers_mod.base.capabilities import Hears

FORMATS = ("onnx", "torch-export", "torchao")
NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch-export": (), "torchao": ("torchao",)}
STANDARD = ("input_ids", "pixel_values", "input_features")  # first tensors of modalities that other runtimes can feed
TOLERANCE = 1e-4  # of unit vectors; larger, and the export is refused
ABOUT = "export.json"


class Features(nn.Module):
    """Tensors in the order of `names` -> unit vectors Float[B D]."""

    def __init__(self, model: GeneralistModel, names: tuple[str, ...], side: str) -> None:
        super().__init__()
        self.model, self.names, self.side = model, names, side

    def forward(self, *tensors: Tensor) -> Tensor:
        out = self.model(**dict(zip(self.names, tensors, strict=True)), side=self.side)
        return normalize(out.pooler_output.float(), dim=-1)


@dataclass
class Program:
    """file: in the folder; sizes: "any", or those of the example where the exporter fixed them; difference: largest
    one between its unit vectors and the model's."""

    file: str
    inputs: list[str]
    sizes: str
    difference: float


def check_needs(kind: str) -> None:
    """UserError where a package is missing, with the line that installs it."""
    if kind not in FORMATS:
        raise UserError(f"no format {kind!r}; {nearest(kind, FORMATS)} (valid: {', '.join(FORMATS)})")
    if missing := [name for name in NEEDS[kind] if find_spec(name) is None]:
        raise UserError(f"{kind} needs {' and '.join(missing)}: pip install {' '.join(missing)}")


def exportable(processor: GeneralistProcessor, wanted: list[str] | None) -> list[str]:
    """The modalities to export. UserError for one that the model lacks, or that has no tensors of standard names."""
    can = [name for name, m in processor.built.items() if m.tensor_names and m.tensor_names[0] in STANDARD]
    for name in wanted or []:
        if name not in can:
            raise UserError(f"{name!r} cannot be exported; {nearest(name, can)} (this model: {', '.join(can)})")
    if not can:
        raise UserError(f"this model reads nothing that is exported (texts, pictures, sounds): {list(processor.built)}")
    return wanted or can


def export(
    model: GeneralistModel,
    processor: GeneralistProcessor,
    kind: str,
    out: Path,
    modalities: list[str] | None = None,
    side: str = INPUT,
) -> dict[str, Program]:
    """{modality: its program} of "onnx" and "torch-export", written into `out` beside export.json."""
    check_needs(kind)
    chosen = exportable(processor, modalities)
    out.mkdir(parents=True, exist_ok=True)
    write = to_onnx if kind == "onnx" else to_torch
    found = {}
    for name in chosen:
        first, second = (tensors_of(processor, name, raw) for raw in samples(processor, name))
        wrapped = Features(model.eval(), tuple(first), side).eval()
        found[name] = one(wrapped, name, first, second, out, write)
    about = {name: vars(program) for name, program in found.items()}
    told = {"format": kind, "side": side, "programs": about}
    (out / ABOUT).write_text(json.dumps(told, indent=2), encoding="utf-8")
    return found


def one(
    wrapped: Features, name: str, first: dict[str, Tensor], second: dict[str, Tensor], out: Path, write: Any
) -> Program:
    """A program of any size where the exporter can, else of any number of samples of the first size."""
    number = {0: Dim("number", min=1, max=4096)}
    told = "any"
    any_size = [dict.fromkeys(range(t.ndim), Dim.AUTO) for t in first.values()]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            run, file = write(wrapped, first, any_size, out, name)
            parted = largest(run, wrapped, second)
        except UserError:
            raise
        except Exception:  # each exporter fails in its own way on sizes that it cannot keep open
            told = " x ".join(map(str, next(iter(first.values())).shape[1:]))
            run, file = write(wrapped, first, [number for _ in first], out, name)
            parted = largest(run, wrapped, {k: v.repeat(2, *[1] * (v.ndim - 1)) for k, v in first.items()})
    if not parted < TOLERANCE:
        raise UserError(f"{name}: the exported program parts from the model by {parted:.1e}; it was not kept")
    return Program(file, list(first), told, parted)


def largest(run: Callable[[list[Tensor]], Tensor], wrapped: Features, tensors: dict[str, Tensor]) -> float:
    """The largest difference between a program and the model on these tensors."""
    given = list(tensors.values())
    return float((run(given) - wrapped(*given)).abs().max())


def to_torch(
    wrapped: Features, first: dict[str, Tensor], dynamic: list[Any], out: Path, name: str
) -> tuple[Callable[[list[Tensor]], Tensor], str]:
    program = torch.export.export(wrapped, tuple(first.values()), dynamic_shapes=(tuple(dynamic),))
    torch.export.save(program, out / f"{name}.pt2")
    loaded = torch.export.load(out / f"{name}.pt2").module()
    return lambda tensors: loaded(*tensors), f"{name}.pt2"


def to_onnx(
    wrapped: Features, first: dict[str, Tensor], dynamic: list[Any], out: Path, name: str
) -> tuple[Callable[[list[Tensor]], Tensor], str]:
    import onnxruntime

    names = {"input_names": list(first), "output_names": ["features"]}
    shapes: dict[str, Any] = {"dynamic_shapes": (tuple(dynamic),), **names}
    path = out / f"{name}.onnx"
    program = torch.onnx.export(wrapped, tuple(first.values()), dynamo=True, verbose=False, optimize=False, **shapes)
    assert program is not None
    program.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(tensors: list[Tensor]) -> Tensor:
        feed = {i.name: t.numpy() for i, t in zip(session.get_inputs(), tensors, strict=True)}
        return torch.from_numpy(session.run(None, feed)[0])

    return run, path.name


def to_torchao(folder: Path, out: Path) -> dict[str, Any]:
    """A model folder whose linear weights are int8 with a scale a row; {"share": of the bytes that it had}."""
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    settings = TorchAoConfig(Int8WeightOnlyConfig())
    model = GeneralistModel.from_pretrained(folder, quantization_config=settings)
    model.save_pretrained(out)
    GeneralistProcessor.from_pretrained(folder).save_pretrained(out)
    sizes = [sum(f.stat().st_size for f in place.glob("*.safetensors")) for place in (out, folder)]
    return {"share": sizes[0] / sizes[1]}


def samples(processor: GeneralistProcessor, name: str) -> list[list[Any]]:
    """Two batches of raw values of other numbers and sizes, read off the modality's standard tensor."""
    kind = processor.built[name].tensor_names[0]
    rng = np.random.default_rng(0)
    if kind == "input_ids":
        return [["a red square on a table"] * 3, ["a blue circle"] * 2]
    if kind == "pixel_values":
        wide, high = (rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((64, 96, 3), (96, 64, 3)))
        return [[wide] * 3, [high] * 2]
    heard = processor.built[name]
    assert isinstance(heard, Hears)
    rate = heard.rate
    return [[(rng.normal(size=rate), rate)] * 3, [(rng.normal(size=2 * rate), rate)] * 2]


def tensors_of(processor: GeneralistProcessor, name: str, raw: list[Any]) -> dict[str, Tensor]:
    """The padded tensors of raw values that need no mask (a text has one always)."""
    modality = processor.built[name]
    return modality.tensors([modality.read(one) for one in raw])
