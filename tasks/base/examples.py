"""What a task shows of itself: settings, records that it takes and records that it refuses (`Task.examples`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from generalist.data.stream.source import Record


class TaskExamples(NamedTuple):
    """(settings, good, bad) are what it takes; a plain tuple of these does as well.

    settings: of the task, such as inputs and classes. good: four records or more with their answers, "id" among their
    fields. bad: a record, and what is said of it (a regular expression). modalities: settings by name, or modalities;
    those of the inputs that are not given are as small as their own examples. info: what the source says of itself.
    """

    settings: Mapping[str, Any] = MappingProxyType({})
    good: Sequence[Record] = ()
    bad: Sequence[tuple[Record, str]] = ()
    modalities: Mapping[str, Any] = MappingProxyType({})
    info: Mapping[str, Any] = MappingProxyType({})
