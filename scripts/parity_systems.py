"""How far the project's mixers and backbones are from the authors' code, tensor by tensor.

    python -m scripts.parity_systems ../shared/reference/rmt [FOLDER ...]

Every file of reference tensors says what it was made with: the system is built from the configuration in the file, so
any sizes of the same code will do. A file whose settings are not built here is refused in one line and the next one
tried; a setting that nobody reads is named. Files of systems that nobody here builds are named at the end. The exit
status is 1 where a tensor differs by more than its tolerance, or a file was refused.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from generalist.data.base.errors import UserError
from generalist.scripts.systems.reference import Reference, error, references
from generalist.scripts.systems.table import SYSTEMS, system_of

ATOL, RTOL = 1e-5, 1e-4


@dataclass(frozen=True)
class Row:
    """One compared tensor. error: the largest difference; excess: by how much it lies over what is allowed, <= 0."""

    system: str
    file: str
    tensor: str
    error: float
    excess: float


@torch.no_grad()
def compare(reference: Reference) -> list[Row] | None:
    """A row for every output of a file, None where no system knows it. UserError where nothing was to compare."""
    found = system_of(reference)
    if found is None:
        return None
    name, module = found
    rows = []
    try:
        made = module.compute(reference)
    except UserError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as wrong:
        said = str(wrong).splitlines() or [""]
        what = f"no {wrong}" if isinstance(wrong, KeyError) else " ".join(line.strip() for line in said[:2])
        raise UserError(f"{reference.name}: {name} cannot be built from its configuration ({what})") from wrong
    for tensor in [name for name in made if name in reference.tensors]:
        ours, theirs = made[tensor], reference.tensors[tensor]
        worst = error(ours, theirs)
        same = ours.shape == theirs.shape
        excess = float(((ours - theirs).abs() - ATOL - RTOL * theirs.abs()).max()) if same else float("inf")
        rows.append(Row(name, reference.name, tensor, worst, excess))
    if not rows:
        raise UserError(f"{reference.name}: {name} found nothing to compare in it")
    return rows


def left(reference: Reference, rows: list[Row]) -> list[str]:
    """The tensors of a compared file that were neither read nor compared."""
    return sorted(set(reference.tensors) - reference.asked - {row.tensor for row in rows})


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="folders of reference tensors")
    args = parser.parse_args(arguments)
    unknown, bad, count = [], 0, 0
    print(f"{'system':<14}{'file':<30}{'tensor':<34}{'largest error':>14}")
    for folder in args.folders:
        for reference in references(folder):
            try:
                rows = compare(reference)
            except UserError as refused:
                print(f"refused: {reference.name}: {str(refused).removeprefix(f'{reference.name}: ')}")
                bad += 1
                continue
            if rows is None:
                unknown.append(f"{folder.name}/{reference.name}")
                continue
            for row in rows:
                wrong = "" if row.excess <= 0 else "  over the tolerance"
                print(f"{row.system:<14}{row.file:<30}{row.tensor:<34}{row.error:>14.1e}{wrong}")
            if rest := left(reference, rows):
                print(f"{'':<14}{reference.name:<30}not compared: {', '.join(rest)}")
            if settings := reference.config.unknown:
                print(f"{'':<14}{reference.name:<30}settings that nobody reads: {', '.join(settings)}")
            bad, count = bad + sum(row.excess > 0 for row in rows), count + len(rows)
    print(f"{count} tensors, {bad} over atol {ATOL:g}, rtol {RTOL:g} or refused")
    if unknown:
        print(f"no system here knows {', '.join(unknown)}; known: {', '.join(SYSTEMS)}")
    return 1 if bad or not count else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error_:
        sys.exit(f"error: {error_}")
