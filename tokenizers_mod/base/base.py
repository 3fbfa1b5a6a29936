"""What a modality is: one class with both halves, and nothing else in the project knows its insides.

CPU half (runs in loader workers, must pickle): `read` turns what a person has in hand into a checked
array, `span` turns that array into a `Span`. Device half: `build(width)` gives the `nn.Module` that
maps the concatenated `Span.data` of a batch to tokens Float["N D"], one row a token of every span.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError, blame, nearest
from generalist.data.base.files import check_regular, is_regular
from generalist.data.base.foreign import file_of
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.padded import flat_rows, pad_spans
from generalist.tokenizers_mod.base.raw import as_numbers


@dataclass
class Modality:
    """Base of every modality: a dataclass whose fields are its settings (JSON values only).

    Class attributes describe it to `generalist info --modalities`.
    """

    name: ClassVar[str]
    raw: ClassVar[str] = ""  # the raw formats that `read` takes, in words
    count: ClassVar[str] = ""  # the number of tokens: a formula of settings and sizes, then words after "; "
    takes_input: ClassVar[bool] = True  # False: there is nothing to give, as of the summary token
    kind: ClassVar[str] = "other"  # "vision", "text" or "other": the attribute bit of conditional MoE
    causal = False  # a token sees those before it and itself only
    device_keys: ClassVar[tuple[str, ...]] = ()  # settings of the device half's inside; the same tokens are cut by all
    whole: ClassVar[bool] = False  # tokens of a sample see each other in the device half: none of them can be left out
    view: ClassVar[int | None] = None  # set on the instance while a sample is looked at several times (`views`)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Whatever a modality's `read` raises, a UserError leaves it: a sample is to blame for what it is."""
        super().__init_subclass__(**kwargs)
        if "read" in vars(cls):
            cls.read = blamed(cls.read)  # type: ignore[method-assign]

    @property
    def views(self) -> int:
        """How often evaluation looks at a sample and averages the answers; a setting where a modality has one."""
        return 1

    def read(self, raw: Any) -> Any:
        """What a person has in hand (path, array, PIL image, str ...) -> a checked value for `span`.

        Raises UserError naming what is wrong: empty, NaN or infinite, wrong shape, unreadable file.
        """
        return raw

    def span(self, value: Any, rng: torch.Generator | None = None) -> Span:
        """A checked value -> its Span. `rng` given means training (augmentation allowed)."""
        raise NotImplementedError(f"{type(self).__name__} must define span")

    def many(self, raws: list[Any]) -> list[Span]:
        """The spans of raw values, none of them augmented; one call where a modality makes many quicker than each."""
        return [self.span(self.read(raw)) for raw in raws]

    # what a cache on disk may spare: the method that takes the time, and its result as one tensor (None: not kept)
    slow: ClassVar[str] = "read"
    # bytes of content below which a file is slower than the method (measured: 30 us and 128 letters of sub-words)
    worth: ClassVar[int] = 256

    def encoded(self, raw: Any) -> bytes | None:
        """What a raw value is made from: an encoded picture or sound, or a file's bytes; None for other values."""
        if isinstance(raw, bytes):
            return raw
        if isinstance(raw, Path):
            try:
                return raw.read_bytes() if is_regular(raw) else None
            except OSError:
                return None
        return file_of(raw)

    def keep(self, value: Any) -> Tensor | None:
        """What the slow method gave, as a tensor that `kept` turns back into the same."""
        return value if isinstance(value, Tensor) else None

    def kept(self, tensor: Tensor) -> Any:
        return tensor

    def steady(self) -> tuple[str, ...]:
        """Names of methods of one value whose result may be kept: the same whenever asked, and changed by nobody.

        "span" belongs here where training draws nothing. `read` draws nothing in any modality; another method that a
        subclass overrides is not kept unless that subclass says so again
        (`generalist.tokenizers_mod.base.cached.remember`).
        """
        return ("read",)

    # whether strings in a raw value are words to be read; of all other modalities a string is a file's path
    reads_words: ClassVar[bool] = False

    def from_command_line(self, word: str) -> Any:
        """A word of the command line -> what `read` takes; here the path of a file that must exist."""
        if not is_regular(word):
            raise UserError(f"--{self.name}: no file {word}; check the path")
        return word

    def sources(self, task: str) -> list[str]:
        """The columns of a row that a task's records must have, where it reads rows."""
        return []

    # names of its padded tensors in Hugging Face's terms, the one that must be there first; () = "<name>_<key>"
    tensor_names: ClassVar[tuple[str, ...]] = ()

    def tensors(self, values: list[Any]) -> dict[str, Tensor]:
        """B checked values -> padded batch-first tensors by their standard names, without augmentation."""
        return pad_spans(self.name, [self.span(value) for value in values])

    def vector(self, raw: Any) -> np.ndarray | None:
        """What a frozen pretrained encoder makes of a raw value, Float[n]; None where there is none."""
        return None

    def padded(self, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        """What `tensors` gives -> flat data of B * n tokens for the device half, Bool[B n] real (None: all are)."""
        return flat_rows(self.name, tensors)

    # most axes of a span's grid: 0 for a set, 1 for tokens in order, 2 and more for planes; a model may turn tokens by
    # their place in a plane, and some mixers work on grids alone
    axes: ClassVar[int] = 0

    def one_grid(self) -> tuple[int, ...] | None:
        """The shape of the grid of every span, None where it differs."""
        return None

    def largest_grid(self) -> tuple[int, ...] | None:
        """The grid of its largest samples, such as a square picture's, None where there is no telling."""
        return self.one_grid()

    def is_causal(self) -> bool:
        """Whether tokens of its inputs see earlier ones only."""
        return False

    def padded_place(self, tensors: dict[str, Tensor], real: Tensor | None) -> Tensor | None:
        """Where the tokens of `padded` stand (`generalist.data.batch.cells`): Int[B n 4]; None: they do not say."""
        return None

    def given(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """Those of named tensors that are this modality's; empty when the one that must be there is not."""
        if self.tensor_names:
            found = {k: tensors[k] for k in self.tensor_names if tensors.get(k) is not None}
            return found if self.tensor_names[0] in found else {}
        return {k: v for k, v in tensors.items() if k.startswith(f"{self.name}_") and v is not None}

    kind_keys: ClassVar[tuple[str, ...]] = ()  # masked modelling: integer keys of a token's kind (a table's column)
    flagged: ClassVar[bool] = False  # whether the second half of its numbers says which were measured

    def content(self) -> dict[str, float]:
        """What a token shows, and not where it is: {key of its data: what a hidden token shows instead}."""
        return {}

    def blank(self) -> dict[str, float]:
        """What a token without content is for whoever looks at what each token contributes, as `content`."""
        return self.content()

    def tokens_in_words(self, span: Span) -> list[str]:
        """What each token of a span is called where it is no place of a grid: a sub-word, a column; [] otherwise."""
        return []

    def seen(self, raw: Any) -> dict[str, Any]:
        """A raw value as JSON like `show`, in the form in which its tokens' grid lies over it."""
        return self.show(raw)

    def hideable(self, span: Span) -> Tensor:
        """Which tokens can be hidden and asked for: Bool[n], by default the real ones."""
        return torch.ones(span.length, dtype=torch.bool) if span.mask is None else span.mask

    def plain(self, raw: Any) -> Any:
        """A raw value, whatever form it came in, as ordinary methods take it: words, numbers, a row
        (`generalist.tasks.baselines.plain`).

        UserError as `read`. A picture is {"pixels": [C, H, W]}, a sound {"array": [t], "sampling_rate"}, a cloud
        {"points": [n, 3 or more]}, a graph a mapping with "edges"; other arrays are what their shape says.
        """
        return self.read(raw)

    def show(self, raw: Any) -> dict[str, Any]:
        """A raw value as JSON that the report can draw: {"kind": ..., ...}."""
        return {"kind": "text", "text": str(raw)}

    def learnable(self, raw: Any) -> None:
        """UserError for a raw value that cannot be read, whatever is learnt; nothing where that is not known."""

    def told(self) -> list[str]:
        """What a person should know of how training data were read, a line each."""
        return []

    def learns_inputs(self) -> bool:
        """Whether `learn_texts` is to be given the texts that go into tasks, besides their answers."""
        return False

    def learn_texts(self, texts: list[str]) -> None:
        """Learn sub-words from training texts, where the modality has any and has not learnt them yet."""

    def adopt_words(self, settings: dict[str, Any]) -> None:
        """Take the sub-words of a saved modality's settings, where this one was to learn its own and has none."""

    def same_words(self, settings: dict[str, Any]) -> bool:
        """Whether token ids mean what they mean under a saved modality's settings; so they do where none are learnt."""
        return True

    @classmethod
    def examples(cls) -> Examples:
        """Small settings, raw values that it takes and raw values that it refuses: what `generalist check modality`
        and the tests of all modalities try."""
        return Examples()

    def build(self, width: int) -> nn.Module:
        """The device half: forward(data: dict[str, Tensor]) -> Float["N width"]."""
        raise NotImplementedError(f"{type(self).__name__} must define build")

    def settings(self) -> dict[str, Any]:
        """JSON-ready settings; `type(self)(**settings)` gives the same modality."""
        return asdict(self)

    def called(self, name: str) -> Self:
        """Itself, under the name that it goes by in its model: one class may serve several modalities."""
        vars(self)["name"] = name
        return self

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        valid = {f.name for f in fields(cls)}
        for key in settings:
            if key not in valid:
                raise UserError(f"modality {cls.name}: no setting {key!r}; {nearest(key, valid)}")
        return cls(**settings)


def blamed(read: Callable[..., Any]) -> Callable[..., Any]:
    """A modality's `read`, whose every error is one line naming it (`generalist.data.base.errors.blamed_on`)."""

    @wraps(read)
    def reading(self: Any, *args: Any, **named: Any) -> Any:
        try:
            return read(self, *args, **named)
        except Exception as error:
            raise blame(error, self.name) from error

    return reading


def check_finite(array: Any, what: str) -> None:
    """UserError when a float array or tensor holds NaN or infinity; says how many of how many."""
    if isinstance(array, np.ndarray) and (array.dtype.kind not in "fc" or bool(np.isfinite(array).all())):
        return
    tensor = torch.as_tensor(array)
    if tensor.is_floating_point():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise UserError(f"{what}: {bad} of {tensor.numel()} values are NaN or infinite; remove or impute them")


def periodic(x: Tensor, frequencies: Tensor) -> Tensor:
    """[sin(2 pi f x), cos(2 pi f x)] over the last axis: [...] x [F] -> [..., 2F]."""
    angle = 2 * torch.pi * x.unsqueeze(-1) * frequencies
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def sincos(positions: Tensor, width: int, base: float = 10000.0) -> Tensor:
    """Unit-scale sine-cosine positions, any real positions: [...] -> [..., width] (width even)."""
    if width % 2:
        raise ValueError(f"sine-cosine positions need an even width, got {width}")
    rate = base ** (-torch.arange(width // 2, device=positions.device, dtype=torch.float32) / (width // 2))
    angle = positions.float().unsqueeze(-1) * rate
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def load_numbers(
    raw: Any, what: str, load_file: Callable[[Path, str], Any], plain: Callable[[Any, str], Any] | None = None
) -> tuple[np.ndarray, str]:
    """An array, or a file that `load_file(path, name)` reads -> (float64 array, name for errors).

    plain: turns what was given or loaded into something array-like. UserError: no such file, unreadable, no numbers.
    """
    if isinstance(raw, str | Path):
        check_regular(raw, what)
        path, what = Path(raw), f"{what} {raw}"
        try:
            raw = load_file(path, what)
        except UserError:
            raise
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{what}: not readable as {path.suffix} ({str(error).splitlines()[0]})") from error
    return as_numbers(raw if plain is None else plain(raw, what), what), what
