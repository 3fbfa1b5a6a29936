"""What `fit` takes where nothing is said, by the kind and the amount of data: the one table of such numbers.

How each was found is told in README.md beside this file ("Defaults"); `python -m scripts.fit_search` looks for better
ones on validation data.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from generalist.tokenizers_mod.tables.table import Table


class Size(NamedTuple):
    """Of the encoder, up to so many rows of training."""

    rows: float
    width: int
    layers: int
    lr: float


SIZES = (Size(1_000, 48, 2, 2e-3), Size(20_000, 96, 3, 1e-3), Size(float("inf"), 128, 4, 1e-3))
WEIGHT_DECAY = 0.05
EPOCHS = 60  # of the training rows, beyond which more steps only learn them by heart
LEAST = 300  # steps that are worth while, if the time allows
LOOKS, PATIENCE = 24, 10  # at the validation data in all, and in a row without a better score
EMA = 0.98  # of the weights, where there are ten times as many steps as it remembers

VAL, TEST = 0.15, 0.2  # of the rows
SMALL, LARGE = 2_000, 20_000  # rows of a table, from which it is cut more finely and needs less noise

# parts of the time given: training with reading, encoders and tests (the rest is for the ordinary method); what
# training has at least; measuring steps; and rows answered behind the training for each row of it
TRAINING, LITTLE, MEASURED, HELD = 0.7, 0.15, 0.05, 0.8

# of a pretrained network of pictures the last stages learn too: so many of them, at so many pixels, from so many
# pictures on, where so many epochs fit into a part of the time given; what an epoch costs a picture, in passes through
# the whole network
TAIL, TAIL_SIZE, TAIL_ROWS, TAIL_EPOCHS, TAIL_TIME, TAIL_COST = 2, 160, 1_000, 2, 0.5, 0.7

# training samples that tell which beginning knows more of them, at most and for each second given; the learning rate
# of what begins from the package's starter
PROBED, PROBED_A_SECOND, STARTER_LR = 600, 1.5, 2e-4

# of a spectrogram as a picture: so many natural logarithms of energy below its loudest cell are black
BELOW = 12.0

# of what is read from scratch
LARGEST = 96  # pixels of a picture's longer side
LONGEST = 128  # pieces of a text
SECONDS = 5.0  # of a sound


def size_for(rows: int) -> Size:
    return next(size for size in SIZES if rows <= size.rows)


def batch_for(rows: int) -> int:
    """Samples a step: small sets are seen in small batches, so that a short time holds enough steps."""
    return 16 if rows < 200 else 32 if rows < SMALL else 64 if rows < LARGE else 128


def table_for(rows: int) -> Table:
    """Piecewise-linear numbers on so many quantile bins; noise on small tables; cells dropped from all."""
    bins = 16 if rows < SMALL else 48 if rows < LARGE else 128
    return Table(bins=bins, noise=0.1 if rows < SMALL else 0.0, drop=0.1)


def classes_for(inputs: dict[str, str]) -> dict[str, Any]:
    """Settings of a classification: rows of a table alone want no smoothing of their labels."""
    return {"smoothing": 0.0 if set(inputs.values()) == {"row"} else 0.05, "templates": []}


def number_for(rows: int) -> dict[str, Any]:
    """Settings of a regression: the spread of a label over its neighbouring bins."""
    return {"sigma": 2.0 if rows >= SMALL else 4.0}
