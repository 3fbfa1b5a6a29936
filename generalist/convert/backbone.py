"""Official weights of a published network -> a backbone folder: {"model_type": "stages", "kind": ...}.

What the file shows of the sizes is read off it where the kind can (`Network.sizes`); all else is said by --settings,
or is the kind's default. Heads and what else makes no maps are left out, and the report names them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from generalist.convert.files import load_tensors
from generalist.convert.report import FILES, Report, fill
from generalist.data.base.errors import UserError, nearest
from generalist.tokenizers_mod.backbones.stages import KINDS, NAME, Stages, StagesConfig, network_class, settings_of

COUNTER = "num_batches_tracked"  # batch norm's, which nothing here reads


def convert(checkpoint: Path, out: Path, network: str = "", settings: str = "", lenient: bool = False) -> Report:
    """network: the kind; settings: of it, as JSON, over what the file shows."""
    if not network:
        raise UserError(f"say which network the file is of: --kind {', '.join(KINDS)}")
    kind = network_class(network)
    tensors, _ = load_tensors(checkpoint)
    report = Report(f"backbone {network}")
    own: dict[str, Tensor] = {}
    for key, value in tensors.items():
        name = kind.renamed(key)
        if name is None or name.endswith(COUNTER):
            report.unused.append(key)
        else:
            own[f"network.{name}"] = value
    if not own:
        raise UserError(f"{checkpoint} holds no weights of {network}; is it of another --kind?")
    found = kind.sizes(tensors)
    model = Stages(StagesConfig(network, found | said(network, settings)))
    shapes = model.state_dict()
    own = {
        k: v.reshape(shapes[k].shape) if k in shapes and v.numel() == shapes[k].numel() else v for k, v in own.items()
    }
    fill(model, own, report, lenient=True)
    report.missing = [name for name in report.missing if not name.endswith(COUNTER)]
    if (report.missing or report.unexpected) and not lenient:
        which = f"lacks {report.missing[0]}" if report.missing else f"holds {report.unexpected[0]} besides"
        raise UserError(f"{report.kind}: the file {which}; give its sizes by --settings, or --lenient to go on without")
    report.notes += [f"sizes that the file shows: {json.dumps(found)}"] if found else []
    silent = [name for name in settings_of(network) if name not in found]
    if not settings and silent:
        report.notes.append(f"not in the file and taken as published: {', '.join(silent)}; --settings says otherwise")
    write(model, report, out)
    return report


def said(network: str, settings: str) -> dict[str, Any]:
    """--settings as values. UserError where they are no JSON object, or not of this kind."""
    try:
        given = json.loads(settings) if settings else {}
    except json.JSONDecodeError as error:
        raise UserError(f"--settings is no JSON ({error}); write it as '{{\"heads\": [2, 4, 8, 16]}}'") from error
    if not isinstance(given, dict):
        raise UserError(f"--settings takes an object, such as '{{\"heads\": [2, 4, 8, 16]}}', not {settings}")
    known = settings_of(network)
    if wrong := [name for name in given if name not in known]:
        raise UserError(f"--settings: {network} has no setting {wrong[0]!r}; {nearest(wrong[0], known)}")
    return given


def write(model: Stages, report: Report, out: Path) -> None:
    """The folder, which may hold an earlier backbone of ours and nothing else."""
    config = out / "config.json"
    if out.suffix in FILES and not out.is_dir():
        raise UserError(f"--out {out} is the name of a file, a backbone is a folder: leave {out.suffix} out")
    try:
        if config.exists() and json.loads(config.read_text(encoding="utf-8")).get("model_type") != NAME:
            raise UserError(f"{out} holds another model, which is not overwritten; choose another --out")
        model.save_pretrained(out)
        report.write(out)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write to {out} ({error}); choose another --out") from error
