"""Candidates encoded once: a value to rank among again and again, and a bounded store of lists that come again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.routes import Role

ROOM = 2**26  # bytes of features that a model keeps
SEEN = 256  # lists of which it is known that they came once

T = TypeVar("T")
State = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Encoded:
    """Candidates with their features Float[K D], as made by `model.candidates`.

    members: their modalities; role: what experts were told of them, None where there are none; weights: the state of
    the weights that made them.
    """

    features: Tensor
    members: frozenset[str]
    role: Role | None
    weights: State

    def __len__(self) -> int:
        return len(self.features)

    def fitting(self, role: Role | None, weights: State) -> Tensor:
        """The features. UserError where they were made by other weights, or as answers to other inputs."""
        if weights != self.weights:
            raise UserError("the weights changed since these candidates were encoded; call model.candidates(...) again")
        if role != self.role:
            raise UserError(
                f"these candidates were encoded as {_said(self.role)} and are asked as {_said(role)}, which experts "
                "tell apart; give model.candidates(..., inputs=, task=) what they answer"
            )
        return self.features


def _said(role: Role | None) -> str:
    if role is None:
        return "answers to anything"
    return f"answers to {' + '.join(role.told) or 'nothing'}" + (f" of task {role.task!r}" if role.task else "")


def state_of(tensors: Iterable[Tensor]) -> State:
    """Tells weights that changed: a step or a load writes in place and counts the version up, a move the address."""
    return tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)


class Kept:
    """Features by what they are of. A list is kept when it comes for the second time: most come once."""

    def __init__(self, room: int = ROOM) -> None:
        self.room, self.used = room, 0
        self.found: OrderedDict[Hashable, tuple[Tensor, Any]] = OrderedDict()
        self.seen: OrderedDict[Hashable, Any] = OrderedDict()

    def again(self, key: Hashable, alive: Any, make: Callable[[], Tensor]) -> Tensor | None:
        """What is kept, made now for a list that came before; None for one that did not. alive: what the key names by
        its address, which must not be given away."""
        if key in self.found:
            self.found.move_to_end(key)
            return self.found[key][0]
        if key not in self.seen:
            self.seen[key] = alive
            while len(self.seen) > SEEN:
                self.seen.popitem(last=False)
            return None
        made = make()
        if made.nbytes <= self.room:
            del self.seen[key]
            self.found[key] = made, alive
            self.used += made.nbytes
            while self.used > self.room:
                self.used -= self.found.popitem(last=False)[1][0].nbytes
        return made

    def clear(self) -> None:
        self.found.clear()
        self.seen.clear()
        self.used = 0

    def __deepcopy__(self, memo: Any) -> Kept:
        return Kept(self.room)

    def __getstate__(self) -> dict[str, Any]:
        return {"room": self.room, "used": 0, "found": OrderedDict(), "seen": OrderedDict()}
