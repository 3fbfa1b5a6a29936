"""The README's Python example: load a trained folder with the Auto classes and use it on any modality."""

import sys

import numpy as np
from transformers import AutoModel, AutoProcessor

import generalist  # noqa: F401  registers the model with the Auto classes

folder = sys.argv[1] if len(sys.argv) > 1 else "runs/demo/model"
model = AutoModel.from_pretrained(folder).eval()
processor = AutoProcessor.from_pretrained(folder)

picture = np.zeros((16, 16), dtype=np.uint8)  # a path or a PIL image does as well
picture[2:14, 7:9] = 255

# probabilities of candidates that you name
answers = ["zero", "one", "eight"]
p = model.rank(processor(image=picture), processor.candidates(answers), scale="classify")
print({name: round(float(v), 3) for name, v in zip(answers, p[0], strict=True)})

# any modality becomes a unit vector of one space, as an input (default) or as a candidate for one
vectors = model.encode(processor(text=["greek small letter alpha", "vertical line"]), side="candidate")
cosines = vectors @ model.encode(processor(image=picture)).T
print(vectors.shape, "cosines with the picture", cosines.squeeze(1).tolist())

# the log-likelihood of a number: a row of a table against the number tokens the model was trained with
row = dict.fromkeys(("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"), 0.0)
numbers = processor.task_candidates("diabetes")
log_p = model.log_likelihood(processor(table=row), numbers.sequences(processor.built), scale="regress")
print("expected value", float(numbers.expectation(log_p)) * numbers.std + numbers.mean)
