"""AutoGluon beside `scripts.fit_table`: the same tables, label, test rows and time, in an environment of its own.

    python -m venv other; other/bin/pip install "autogluon.tabular[lightgbm,catboost,xgboost]"
    other/bin/python -m scripts.fit_autogluon WORK --sets adult abalone --time 600 --out FILE

WORK: the folder that `python -m scripts.fit_table DATA --work WORK` left, with the words of `fit` for every set. Only
sets of tables with a test file; AutoGluon takes the time for training, with its preset medium_quality unless another is
given. A line a set goes to FILE. Nothing of this package is imported: it needs other versions of its dependencies.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

FEW = 10  # different numbers of a label, up to which they are classes


def measured(words: list[str], seconds: float, preset: str) -> dict[str, Any]:
    """Accuracy of names or rmse of numbers on the test file."""
    import pandas
    from autogluon.tabular import TabularPredictor

    given = dict(zip(words[1::2], words[2::2], strict=True))
    train, test = pandas.read_csv(words[0]), pandas.read_csv(given["--test"])
    label, began = given["--label"], time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        number = train[label].dtype.kind in "iuf" and train[label].nunique() > FEW
        kind = "regression" if number else None  # as `fit` reads such a label; else as AutoGluon tells it
        predictor = TabularPredictor(label=label, problem_type=kind, path=folder, verbosity=0)
        predictor.fit(train, time_limit=seconds, presets=preset, num_cpus=1)
        found = predictor.evaluate(test, silent=True)
        best = predictor.model_best
    measure = "accuracy" if "accuracy" in found else "root_mean_squared_error"
    value = abs(float(found[measure]))
    return {"measure": measure, "value": value, "best": best, "processor seconds": round(time.process_time() - began)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sets", nargs="+", default=["abalone", "landsat", "adult", "banking77"])
    parser.add_argument("--time", type=float, default=600.0, help="seconds of each fit")
    parser.add_argument("--preset", default="medium_quality")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    held = json.loads(args.out.read_text()) if args.out.is_file() else {}
    for name in args.sets:
        load = os.getloadavg()[0]
        words = json.loads((args.work / name / "words.json").read_text())
        line = measured(words, args.time, args.preset) | {"time": args.time, "preset": args.preset}
        held[name] = line | {"load": round(max(load, os.getloadavg()[0]), 1)}
        print(name, held[name], flush=True)
        args.out.write_text(json.dumps(held, indent=1) + "\n")


if __name__ == "__main__":
    main()
