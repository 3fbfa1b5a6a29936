"""How far this framework's numbers are from those of the official Uni-Perceiver code, tensor by tensor.

    python -m scripts.parity tests/reference/uni_perceiver          # a table of the largest error per case

Errors are relative to the reference tensor's largest value. Tolerances: 1e-5 forward and losses, 5e-5 gradients.
Reference tensors hold padding, packed batches none, so both are compared at real tokens. Any folder of the same code
will do: sizes, ids and cases are read from its files (`scripts.parity_files`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from generalist.data.base.errors import UserError
from generalist.scripts.parity_compare import FORWARD, GRADIENT, Row
from generalist.scripts.parity_files import entries
from generalist.scripts.parity_run import Reference


def rows(folder: Path) -> Iterator[tuple[str, Row]]:
    """(file, comparison) over all files and cases."""
    for name, entry in entries(folder).items():
        for case in entry.cases:
            for row in Reference(folder, entry).run(case):
                yield name, row
        for row in Reference(folder, entry).beams():
            yield name, row


def left_out(reference: Reference, compared: set[str]) -> set[str]:
    """Outputs of a file that nothing was compared with; ids that end a caption are read, not compared."""
    return {name for name in reference.y if name not in compared and not name.endswith(".eos_id")}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder of the reference tensors")
    parser.add_argument("--all", action="store_true", help="every tensor, not only the largest error per case")
    args = parser.parse_args(argv)
    worst: dict[tuple[str, str, float], list[Row]] = {}
    seen: dict[str, set[str]] = {}
    try:
        for name, row in rows(args.folder):
            if args.all:
                print(f"{name:30} {row.case:14} {row.tensor:70} {row.error:.1e}")
            worst.setdefault((name, row.case, row.tolerance), []).append(row)
            seen.setdefault(name, set()).add(f"{row.case}.{row.tensor}")
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{'file':30} {'case':14} {'kind':10} {'tensors':>7} {'largest error':>14}  of")
    for (name, case, tolerance), found in worst.items():
        row = max(found, key=lambda r: r.error)
        kind = {GRADIENT: "gradient", FORWARD: "forward"}.get(tolerance, "equal")
        mark = "" if row.error <= tolerance else "   ABOVE TOLERANCE"
        print(f"{name:30} {case:14} {kind:10} {len(found):7} {row.error:14.1e}  {row.tensor}{mark}")
    for name, entry in entries(args.folder).items():
        for missed in sorted(left_out(Reference(args.folder, entry), seen.get(name, set()))):
            print(f"{name:30} not compared: {missed}")


if __name__ == "__main__":
    main()
