"""An official Uni-Perceiver file under one set of names: what its variants call otherwise, and its folded tables."""

from __future__ import annotations

import torch
from torch import Tensor

from generalist.convert.report import Report, real_numbers
from generalist.convert.uni_perceiver import keys
from generalist.convert.uni_perceiver.vocabulary import OFFICIAL, tokenizer_setting, usual
from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.text.bpe import EOT, SPE


def canonical(tensors: dict[str, Tensor], container: str = "") -> tuple[dict[str, Tensor], Report]:
    """Any dialect -> torch names, aliases checked and dropped."""
    own, others = keys.strip_prefix(tensors)
    old = keys.is_deepspeed(own)
    report = Report("uni-perceiver, deepspeed dialect" if old else "uni-perceiver, torch dialect")
    if keys.ANCHOR not in own:
        raise UserError(f"not a Uni-Perceiver checkpoint: no {keys.ANCHOR} among its {len(tensors)} tensors")
    report.unexpected += others
    official = keys.to_torch_dialect(own) if old else dict(own)
    for name in [n for n in official if n.startswith("visual_embed.")]:
        report.unused.append(name)
        del official[name]
    for name in list(official):  # one LayerNorm under two names: the video one counts (spec 6)
        if name.startswith("video_embed.embeddings_norm."):
            twin = "token_embed." + name[len("video_embed.") :]
            if twin in official and not torch.equal(official[twin], official[name]):
                report.notes.append(f"{twin} differs from {name}; the latter is taken")
            official[twin] = official.pop(name)
    bias = official.pop("s_token_bias", None)
    if bias is not None:
        other = official.get("token_embed.s_token_bias", bias)
        if other.shape != bias.shape or not torch.equal(other, bias):
            report.notes.append("token_embed.s_token_bias differs from s_token_bias; the latter is taken")
        official["token_embed.s_token_bias"] = bias
    for name in list(official):
        head, _, rest = name.partition("fused_encoder.layers.")
        number, _, inner = rest.partition(".")
        if head == "" and inner in keys.MOE_DENSE:
            official[f"fused_encoder.layers.{number}.{keys.MOE_DENSE[inner]}"] = official.pop(name)
    known = {name: value for name, value in official.items() if keys.known(name)}
    report.unexpected += [name for name in official if name not in known]
    real_numbers(known, report)
    for name, value in known.items():
        keys.check_shape(name, value)
    return {name: value.float() for name, value in known.items()}, report


def vocabulary_of(
    official: dict[str, Tensor], report: Report, unused: dict[str, Tensor], end_id: int, spe_id: int
) -> str:
    """The tokenizer of the file's words, and a line where it is not the official one.

    Rows beyond the official vocabulary are a table's padding: they mean nothing and are kept for the way back.
    """
    entries = len(official[keys.ANCHOR])
    if entries > OFFICIAL and not (end_id or spe_id):
        unused[keys.ANCHOR] = official[keys.ANCHOR][OFFICIAL:]
        official[keys.ANCHOR] = official[keys.ANCHOR][:OFFICIAL].clone()
        report.notes.append(f"the first {OFFICIAL} of {entries} words are taken for the official ones, the rest unused")
    elif entries != OFFICIAL:
        end, spe = end_id or usual(entries, EOT), spe_id or usual(entries, SPE)
        told = "as told" if end_id and spe_id else "assumed, the file does not say (--end-id, --spe-id)"
        report.notes.append(f"{entries} words, not the official {OFFICIAL}: ids {EOT} {end}, {SPE} {spe} {told}")
    return tokenizer_setting(len(official[keys.ANCHOR]), end_id, spe_id)


def heads_of(width: int, heads: int, report: Report) -> int:
    """The number of attention heads, which no file says: as told, or that of the published sizes, and a line."""
    if heads:
        return heads
    heads = width // 64 if width >= 192 and width % 64 == 0 else 4
    if width % heads:
        raise UserError(f"the file does not say how many attention heads share width {width}; give --heads")
    report.notes.append(f"{heads} attention heads assumed for width {width}: the file does not say (--heads)")
    return heads


def fold_type(official: dict[str, Tensor], report: Report) -> None:
    """patch bias += vision type row: the same numbers as adding the row to every patch (spec 1.6)."""
    row, bias = official.get(keys.VISION_TYPE), "video_embed.embeddings.bias"
    if row is not None and bias in official and row.shape[1:] == official[bias].shape:
        official[bias] = official[bias] + row[0]
        official[keys.VISION_TYPE] = torch.zeros_like(row)
        report.notes.append("the vision type row is folded into the patch bias")
