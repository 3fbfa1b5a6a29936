"""Tensors that all samples share: made once, and never kept from a trace or another device."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from generalist.data.base.constants import constant
from generalist.data.batch.types import Span


def test_a_constant_is_made_once_and_the_oldest_goes_when_there_are_too_many():
    made = []

    @constant(2)
    def row(n):
        made.append(n)
        return torch.arange(n)

    assert row(3) is row(3) and row(5) is row(5) and made == [3, 5]
    row(7)
    assert row(5) is row(5) and made == [3, 5, 7]
    assert row(3).tolist() == [0, 1, 2] and made == [3, 5, 7, 3]


def test_what_a_trace_or_another_device_made_is_not_kept():
    @constant(9)
    def span(n):
        return Span("image", {"x": torch.zeros(n, 2)}, n)

    with FakeTensorMode():
        assert type(span(3).data["x"]) is not torch.Tensor
    with torch.device("meta"):
        assert span(5).data["x"].is_meta
    for n in (3, 5):
        assert type(span(n).data["x"]) is torch.Tensor and span(n).data["x"].device.type == "cpu"
        assert span(n) is span(n)
    with torch.inference_mode():
        assert not span(7).data["x"].is_inference()
    with FakeTensorMode():
        assert type(span(3).data["x"]) is not torch.Tensor  # and a trace is not given what was kept before it
