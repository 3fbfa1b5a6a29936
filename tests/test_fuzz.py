"""Whatever is given to the public processor, it answers: sequences, or a mistake told in one short line, soon."""

import re
import time
import warnings
from pathlib import Path

import pytest
from fuzz import OWN, cases
from test_bad_input import SHOWN

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.hf.processor import GeneralistProcessor
from generalist.tokenizers_mod.base.modalities import build_modalities

SOON = 5.0  # seconds that one input may take
MORE = 10_000  # cases a modality in the long tests, a tenth of them in the others
MEMORY = 2 * 1024**2  # kB that the process may come to, beside what other tests left in it
SETTINGS = {name: dict(shown.settings) for name, shown in SHOWN.items()}


@pytest.fixture(scope="module")
def processor() -> GeneralistProcessor:
    text = build_modalities({"text": SETTINGS["text"]})["text"]
    return GeneralistProcessor(tokenizer=text.hf_tokenizer(), modalities=SETTINGS)


def wrong(processor: GeneralistProcessor, name: str, value: object) -> str:
    """What is wrong with the processor's answer to an input; "" where nothing is."""
    began = time.monotonic()
    try:
        pack(processor(**{name: value}))
    except UserError as error:
        said = str(error)
        if "\n" in said or len(said) >= 300 or not said or "array(" in said or "tensor(" in said:
            return f"says {said!r}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    took = time.monotonic() - began
    return f"took {took:.1f} s" if took > SOON else ""


def attack(processor: GeneralistProcessor, name: str, count: int, folder: Path) -> list[str]:
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, value in enumerate(cases(name, count, folder)):
            if said := wrong(processor, name, value):
                found.append(f"case {number}, {type(value).__name__} {str(value)[:100]!r}: {said}")
    return found


def memory(which: str) -> int:
    """kB of this process: "VmRSS" now, "VmHWM" the most since it was last reset."""
    return int(re.search(rf"{which}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("count", [MORE // 10, pytest.param(MORE, marks=pytest.mark.soak)])
def test_any_input_gives_sequences_or_one_line(processor, name, count, tmp_path):
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = memory("VmRSS")
    assert attack(processor, name, count, tmp_path) == []
    assert memory("VmHWM") - before < MEMORY


@pytest.mark.parametrize("name", OWN)
def test_the_generator_also_makes_what_can_be_read(processor, name, tmp_path):
    """An input that is always refused would show nothing."""
    good = 0
    for value in cases(name, 300, tmp_path):
        try:
            good += len(processor(**{name: value})) > 0
        except UserError:
            continue
    assert good >= 3
