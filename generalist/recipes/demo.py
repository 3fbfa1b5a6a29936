"""Nine tasks over six modalities through one small encoder, from data that installed libraries ship.

    generalist train demo          # about seven minutes on two cores, evaluation included

Expect on held-out data (seed 0; diabetes rmse and series mae are better when lower):

    digits        accuracy 0.975  chance 0.1     baseline 0.955
    glyphs        recall@1 0.275  chance 0.00625 baseline 0.391
    masked_words  accuracy 0.0992 chance 0.0422  baseline 0.11
    wine          accuracy 1      chance 0.389   baseline 0.972
    breast_cancer accuracy 0.982  chance 0.628   baseline 0.982
    diabetes      rmse     56.8   chance 77.1    baseline 53.6
    series        mae      0.513  chance 1.5     baseline 0.647
    tones         accuracy 0.723  chance 0.129   baseline 0.596
    solids        accuracy 0.953  chance 0.121   baseline 0.885
"""

from __future__ import annotations

from typing import Any

from generalist.data.sources.embedded import Embedded
from generalist.recipe.recipe import CheckpointSpec, Recipe
from generalist.recipe.specs import ModelSpec, OptimizerSpec
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.fill import Fill
from generalist.tasks.kinds.forecast import Forecast
from generalist.tasks.kinds.regress import Regress
from generalist.tasks.kinds.retrieve import Retrieve
from generalist.tokenizers_mod.audio.audio import Audio
from generalist.tokenizers_mod.geometry.points import Points
from generalist.tokenizers_mod.numbers.number import Number
from generalist.tokenizers_mod.numbers.series import Series
from generalist.tokenizers_mod.numbers.slot import Slot
from generalist.tokenizers_mod.tables.table import Table
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image


def demo() -> Recipe:
    picture, row = {"image": "image"}, {"table": "row"}
    usual: dict[str, Any] = {"batch": 32, "smoothing": 0.1}
    # The small tables are learnt in a hundred steps. From then on their gradients are small and mostly noise, which
    # balancing would bring to the length of every other task's: a short omega and a small share keep them quiet.
    return Recipe(
        name="demo",
        about="nine tasks over six modalities, one encoder, one likelihood",
        steps=9000,
        step_seconds=0.042,
        workers=1,  # batches are made beside the steps, which wait 4 % of their time at first instead of 18
        modalities={
            "summary": Summary(),
            "text": Text(tokenizer="", learn=800, max_length=48, positions=48, position_std=0.5, position_waves=True),
            "image": Image(size=24, patch=12, channels=1, shift=1, mean=0.0, std=0.3),
            "audio": Audio(rate=8000, mels=40, patch=[40, 4], stride=[40, 4], mean=-6.0, std=2.0),
            "points": Points(groups=16, size=16, hidden=32, rotate=True),
            "series": Series(patch=8, periods=[12.0, 52.0, 11.0, 4.0]),
            "slot": Slot(patch=8, periods=[12.0, 52.0, 11.0, 4.0]),
            "table": Table(noise=0.3),
            "number": Number(),
        },
        tasks=[
            Classify(name="digits", source=Embedded("digits"), inputs=picture, share=1.5, **usual),
            Retrieve(name="glyphs", source=Embedded("glyphs"), inputs=picture, share=2.0, batch=64, smoothing=0.1),
            Fill(name="masked_words", source=Embedded("docstrings"), batch=24, share=1.5),
            Classify(name="wine", source=Embedded("wine"), inputs=row, share=0.4, omega=0.15, **usual),
            Classify(
                name="breast_cancer", source=Embedded("breast_cancer"), inputs=row, share=0.4, omega=0.15, **usual
            ),
            Regress(
                name="diabetes", source=Embedded("diabetes"), inputs=row, share=0.2, omega=0.3, sigma=8.0, batch=32
            ),
            Forecast(name="series", source=Embedded("series"), horizon=24, batch=32),
            Classify(name="tones", source=Embedded("tones"), inputs={"audio": "audio"}, **usual),
            Classify(name="solids", source=Embedded("solids"), inputs={"points": "points"}, share=1.5, **usual),
        ],
        model=ModelSpec(width=96, layers=3, heads=4, hidden=384, embedding_norm=False),
        optimizer=OptimizerSpec(lr=4e-4, betas=(0.95, 0.99), warmup=400, weight_decay=0.05),
        checkpoint=CheckpointSpec(every=1000, keep=2),
    )
