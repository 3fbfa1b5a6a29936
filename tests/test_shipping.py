"""Batches from a worker: one piece of memory, the same values."""

import pickle
from dataclasses import dataclass

import pytest
import torch

from generalist.data.batch.shipping import ship, unpacked


@dataclass
class Thing:
    name: str
    tensors: dict[str, torch.Tensor]
    twice: list[torch.Tensor]


def thing() -> Thing:
    torch.manual_seed(0)
    values = {
        "float": torch.randn(3, 5),
        "scalar": torch.tensor(7),
        "bool": torch.tensor([True, False, True]),
        "empty": torch.zeros(0, 4, dtype=torch.long),
        "half": torch.randn(5).bfloat16(),
        "turned": torch.arange(12, dtype=torch.int32).view(3, 4).T,
        "double": torch.randn(3, dtype=torch.float64),
        "complex": torch.randn(2, dtype=torch.complex64),
        "expanded": torch.ones(1).expand(4),
    }
    return Thing("x", values, [values["float"], values["float"]])


def same(a: Thing, b: Thing) -> None:
    assert a.name == b.name and list(a.tensors) == list(b.tensors)
    for name, value in a.tensors.items():
        assert value.dtype == b.tensors[name].dtype and torch.equal(value, b.tensors[name]), name


def test_what_is_shipped_arrives_the_same_in_one_buffer():
    given = thing()
    sent = ship(given)
    assert sent.buffer.is_shared()
    got = unpacked(sent)
    same(given, got)
    assert got.twice[0] is got.twice[1] is got.tensors["float"]
    owners = {t.untyped_storage().data_ptr() for t in got.tensors.values() if t.numel()}
    assert owners == {sent.buffer.untyped_storage().data_ptr()}
    same(given, unpacked(pickle.loads(pickle.dumps(sent))))


def test_a_batch_without_tensors_is_shipped_too():
    assert unpacked(ship({"a": [1, "b"]})) == {"a": [1, "b"]}


@pytest.mark.parametrize("kind", [torch.nn.Parameter, torch.sparse_coo_tensor])
def test_other_kinds_of_tensor_go_as_pickle_takes_them(kind):
    value = torch.nn.Parameter(torch.ones(2)) if kind is torch.nn.Parameter else torch.eye(2).to_sparse()
    got = unpacked(ship([value]))[0]
    assert type(got) is type(value) and got.layout == value.layout
    assert torch.equal(
        got.detach().to_dense() if got.is_sparse else got.detach(), torch.ones(2) if not got.is_sparse else torch.eye(2)
    )
