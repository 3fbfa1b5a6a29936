"""What `fit` is asked, what it makes of each part of it, and the modalities that all parts share."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from generalist.tasks.base.task import Task
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.pretrained.text import MOST as MOST
from generalist.tokenizers_mod.pretrained.text import PretrainedText
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text


@dataclass
class Ask:
    """One part of a joint model: `data` is a table's file, a folder or coco:FOLDER.

    label: the column with the answer; test: a file of test rows; forecast: steps ahead; date, group: columns;
    retrieve: two columns that find each other; detect: objects in pictures. answer: what the label is taken for,
    "classes", "names" (several a row) or "number"; "" = by its values.
    """

    data: str
    label: str = ""
    test: str = ""
    forecast: int = 0
    date: str = ""
    group: str = ""
    retrieve: tuple[str, ...] = ()
    detect: bool = False
    answer: str = ""

    @property
    def stem(self) -> str:
        """The data's name in one word."""
        name = Path(self.data.removeprefix("coco:").rstrip("/")).name.partition(".")[0]
        return plain_word(name) or "data"


@dataclass
class Part:
    """A part decided: its task, how many rows it trains on, and what to say of it, in lines.

    test: rows that it is tested on, 0 = in proportion. encoding: seconds that pretrained encoders take for its samples.
    one_of: whether its answer is one of some classes.
    """

    task: Task
    rows: int
    told: list[str]
    test: int = 0
    encoding: float = 0.0
    one_of: bool = False


@dataclass
class House:
    """The modalities of the model, by name; parts that need the same share one.

    seconds: given to all of it; encoders: whether pretrained ones are used; told: what to say of them; encoding:
    seconds that they take.
    """

    seconds: float = 600.0
    encoders: bool = True
    told: list[str] = field(default_factory=list)
    encoding: float = 0.0
    modalities: dict[str, Modality] = field(default_factory=lambda: {"summary": Summary()})
    names: set[str] = field(default_factory=set)

    def hear(self, told: str, seconds: float) -> None:
        """What an encoder says of itself, and what it takes."""
        self.told.append(told)
        self.encoding += seconds

    def add(self, wanted: str, modality: Modality, own: bool = False) -> str:
        """The name under which the modality stands; one that is there with the same settings is shared unless `own`."""
        number = 1
        while True:
            name = wanted if number == 1 else f"{wanted}_{number}"
            if name not in self.modalities:
                self.modalities[name] = modality
                return name
            if not own and self.modalities[name] == modality:
                return name
            number += 1

    def text(self, learn: int, max_length: int, inputs: bool = False) -> str:
        """The one text modality, large enough for all who use it. inputs: texts go in, not only names of classes."""
        held = self.modalities.get("text")
        held = (
            held
            if isinstance(held, Text)
            else Text(tokenizer="", learn=learn, max_length=max_length, positions=max_length)
        )
        self.modalities["text"] = held.room_for(learn, max_length, inputs)
        return "text"

    def sentence(self, made: PretrainedText) -> str:
        """Texts and names of classes through a pretrained encoder, in place of what was to be learnt of them."""
        held = self.modalities.get("text")
        longest = made.max_length
        if isinstance(held, Text):
            longest = max(longest, min(held.max_length, MOST))
        self.modalities["text"] = replace(made, max_length=longest, positions=longest)
        return "text"

    def name(self, wanted: str) -> str:
        """A task's name that no other has, and that torch has no other use for: its scale goes by it ("type")."""
        wanted = plain_word(wanted) or "task"
        wanted += "_task" if wanted in dir(nn.ParameterDict) else ""
        found, number = wanted, 1
        while found in self.names:
            number += 1
            found = f"{wanted}_{number}"
        self.names.add(found)
        return found


def plain_word(name: str) -> str:
    """A name as a key of the command line: letters, digits and underscores."""
    return re.sub(r"\W+", "_", name).strip("_").lower()


def several(names: list[str], most: int = 6) -> str:
    """'a, b, c ...'"""
    return ", ".join(names[:most]) + (f" ... ({len(names)})" if len(names) > most else "")


def listed(value: Any) -> str:
    return f"{value:,}"
