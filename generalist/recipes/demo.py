"""Nine tasks over six modalities through one small encoder, from data that installed libraries ship.

    generalist train demo          # about four minutes on two cores
"""

from __future__ import annotations

from data.embedded import Embedded
from generalist.recipe import CheckpointSpec, ModelSpec, OptimizerSpec, Recipe
from tasks.classify import Classify
from tasks.fill import Fill
from tasks.forecast import Forecast
from tasks.regress import Regress
from tasks.retrieve import Retrieve
from tokenizers_mod.audio import Audio
from tokenizers_mod.image import Image
from tokenizers_mod.number import Number
from tokenizers_mod.points import Points
from tokenizers_mod.series import Series
from tokenizers_mod.slot import Slot
from tokenizers_mod.summary import Summary
from tokenizers_mod.table import Table
from tokenizers_mod.text import Text


def demo() -> Recipe:
    return Recipe(
        name="demo",
        about="nine tasks over six modalities, one encoder, one likelihood",
        steps=6000,
        modalities={
            "summary": Summary(),
            "text": Text(tokenizer="", learn=800, max_length=48, positions=48),
            "image": Image(size=24, patch=12, shift=1, mean=0.0, std=0.3),
            "audio": Audio(rate=8000, mels=40, patch=[40, 4], stride=[40, 4], mean=-6.0, std=2.0),
            "points": Points(groups=16, size=16, hidden=32, rotate=True),
            "series": Series(patch=8, periods=[12.0, 52.0, 11.0, 4.0]),
            "slot": Slot(patch=8, periods=[12.0, 52.0, 11.0, 4.0]),
            "table": Table(),
            "number": Number(),
        },
        tasks=[
            Classify(name="digits", source=Embedded("digits"), inputs={"image": "image"}, batch=32),
            Retrieve(name="glyphs", source=Embedded("glyphs"), inputs={"image": "image"}, batch=64, share=2.0),
            Fill(name="masked_words", source=Embedded("docstrings"), batch=24, share=2.0),
            Classify(name="wine", source=Embedded("wine"), inputs={"table": "row"}, batch=32, share=0.5, omega=0.15),
            Classify(name="breast_cancer", source=Embedded("breast_cancer"), inputs={"table": "row"}, batch=32, share=0.5, omega=0.15),
            Regress(name="diabetes", source=Embedded("diabetes"), inputs={"table": "row"}, batch=32, share=0.5, omega=0.3),
            Forecast(name="series", source=Embedded("series"), horizon=24, batch=32),
            Classify(name="tones", source=Embedded("tones"), inputs={"audio": "audio"}, batch=32),
            Classify(name="solids", source=Embedded("solids"), inputs={"points": "points"}, batch=32),
        ],
        model=ModelSpec(width=96, layers=3, heads=4, hidden=384, embedding_norm=False),
        optimizer=OptimizerSpec(lr=5e-4, betas=(0.95, 0.99), warmup=300, weight_decay=0.05),
        checkpoint=CheckpointSpec(every=1000, keep=2),
    )
