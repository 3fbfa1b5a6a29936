"""The report's section on concepts: how many are active, what they say of answers, and some of them."""

from __future__ import annotations

from typing import Any

from generalist.report.figures import esc, fmt, heat, shorten
from generalist.report.sections.heats import drawn


def concepts_section(found: dict[str, Any]) -> str:
    """Layers by kinds of input, prediction of wrong answers, concepts over the inputs where they are most active."""
    layers = found["layers"]
    kinds = list(layers[0]["active"])
    note = (
        f"Task {esc(found['task'])}: a sparse autoencoder a layer, learnt on {fmt(found['learnt'])} records and asked "
        f"of {fmt(found['n'])} others: as they are, with half or all of their contents in other places, and noise."
    )
    figures = []
    for key, title, words in (
        ("active", "Active concepts", "a token; the stranger the input the more"),
        ("unexplained", "Unexplained", "share of a layer's tokens that concepts do not make up"),
    ):
        cells = [
            [(line[key][kind], f"{line['layer']}, {kind}: {line[key][kind]:.3f}") for kind in kinds] for line in layers
        ]
        most = max(value for line in layers for value in line[key].values())
        drawing = heat(
            [line["layer"] for line in layers], [k.replace("half ", "½ ") for k in kinds], cells, title, full=most
        )
        figures.append(f"<figure class='card'><h4>{title}</h4>{drawing}<figcaption>{words}</figcaption></figure>")
    parts = [f'<p class="note">{note}</p><div class="grid2">{"".join(figures)}</div>', _predicted(found["predict"])]
    cards = "".join(_card(one) for one in found["concepts"])
    title = '<h3>Concepts that differ most between records <span class="note">where they are most active</span></h3>'
    return "".join([*parts, title, f'<div class="heat-cards">{cards}</div>'])


def _predicted(predict: dict[str, Any]) -> str:
    if not predict["layers"]:
        return ""
    name = "AUC" if "AUC" in predict["layers"][0] else "r"
    rows = "".join(f"<tr><td>{esc(line['layer'])}</td><td>{line[name]:.3f}</td></tr>" for line in predict["layers"])
    before, after = predict["unsure"]
    words = (
        f"Partial least squares from a record's mean concepts, five folds. Without the {len(predict['suppressed'])} "
        f"concepts of {esc(predict['best'])} that say so most, −log p of the answer goes from {fmt(before)} to "
        f"{fmt(after)}."
    )
    return (
        f'<h3>{esc(predict["what"].capitalize())}</h3><p class="note">{words}</p>'
        f'<div class="card plain"><table><tr><th>from</th><th>{name}</th></tr>{rows}</table></div>'
    )


def _card(one: dict[str, Any]) -> str:
    heats = "".join(f"<figure>{drawn(given, 'activity')}</figure>" for given in one["heats"])
    steer = one["steer"]
    gain = f"p of <b>{esc(shorten(steer['answer'], 40))}</b> " if steer["answer"] else "the answer that gains most: p "
    return (
        f'<article class="card answer"><header><span>{esc(one["layer"])}, concept {one["concept"]}</span>'
        f"<span>{esc(shorten(one['id'], 40))}</span></header>"
        f'<div class="heats">{heats}</div><p class="note">active in {100 * one["share"]:.0f} % of the records; added '
        f"everywhere, {gain}{fmt(steer['before'])} → {fmt(steer['after'])}</p></article>"
    )
