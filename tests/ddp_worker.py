"""A head of classes under DistributedDataParallel, which sees one modality a step; a part of `two_ranks`."""

import clients
import torch
from torch.nn.parallel import DistributedDataParallel

NAMES = {0: "a red seven", 1: "a blue nine", 2: "some words"}


def head():
    """A head of classes of pictures on the small model, the same weights on every rank; its processor."""
    from generalist.hf.heads.classification import GeneralistForImageClassification

    plain, processor = clients.model_and_processor()
    plain.config.id2label = NAMES
    model = GeneralistForImageClassification(plain.config)
    model.load_state_dict(plain.state_dict())
    return model.train(), processor


def gradients(model, processor, rows: range, steps: int = 1) -> dict[str, torch.Tensor]:
    """Of the parameters that had a part in a batch of these pictures, in the last of the steps."""
    pictures = processor(image=[clients.picture(12, 12, i) for i in rows], return_tensors="pt")
    for _ in range(steps):
        model.zero_grad()
        model(**pictures, labels=torch.tensor([i % 3 for i in rows])).loss.backward()
    return {n.removeprefix("module."): p.grad for n, p in model.named_parameters() if p.grad is not None}


def under_ddp(rank: int) -> dict[str, torch.Tensor]:
    """The gradients of a rank's half of six pictures; the second step is where a wrapper that still waits fails."""
    model, processor = head()
    wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    return gradients(wrapped, processor, range(3 * rank, 3 * rank + 3), steps=2)
