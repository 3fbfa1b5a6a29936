"""Python on the pages is run as it stands, in a folder with what it speaks of; test_docs_run.py runs the command lines.

What a block takes for given (`frame`, `model`, `X`) is put there before it by a function of its page. Times are cut.
Tutorials are followed whole by test_tutorials.py.
"""

import ast
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas
import pytest
from page_world import trained
from test_docs_code import PAGES, blocks

UNRUN = {"README.md": "the quick start: test_demo_small.py runs it with a trained demo, test_readme.py compares it"}


def python_of(page: str) -> list[str]:
    """The blocks of a page that are Python: more than a word, and it is parsed."""
    found = []
    for block in blocks(page):
        try:
            tree = ast.parse(block)
        except SyntaxError:
            continue
        if any(not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call) for node in tree.body):
            found.append(block)
    return found


def nothing() -> dict:
    return {}


def sounds() -> dict:
    return {"silence": {"array": np.zeros(16000, np.float32), "sampling_rate": 16000}}


def tables() -> dict:
    draw = np.random.default_rng(0)
    frame = pandas.DataFrame({"rooms": draw.integers(1, 7, 80), "size": draw.normal(70, 20, 80)})
    frame["price"] = 1000.0 * frame["rooms"]
    rows = frame[["rooms", "size"]]
    return {"frame": frame, "rows": rows.head(3), "X": rows, "y": frame["rooms"] % 2}


def model() -> dict:
    from generalist.hf.predict import load_model

    model, processor = load_model(Path("runs/demo"))
    given = {"names": ["square", "stripe"], "inputs": processor(image="a.png")}
    return given | {"folder": "runs/demo/model", "model": model, "processor": processor}


def folders() -> dict:
    """Weights as transformers and open_clip keep them, drawn at random."""
    import open_clip
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModel

    config = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}
    AutoModel.from_config(AutoConfig.for_model("dinov2", **config)).save_pretrained("models/dinov2")
    save_file(open_clip.create_model("ViT-B-32").state_dict(), "vit_b_32.safetensors")
    return {}


def rooms() -> dict:
    """What the shortened classes of the inner pages are made of."""
    homes = {
        "dataclasses": ["dataclass"],
        "jaxtyping": ["Float"],
        "torch": ["Tensor"],
        "generalist.data.batch.at": ["At"],
        "generalist.data.batch.types": ["Example"],
        "generalist.data.stream.source": ["Records"],
        "generalist.nn.mixers.base": ["Mixer"],
        "generalist.nn.spec": ["Needs"],
        "generalist.tasks.base.examples": ["TaskExamples"],
        "generalist.tasks.base.task": ["Task"],
        "generalist.tasks.candidates.names": ["Names"],
        "generalist.tokenizers_mod.base.base": ["Modality"],
        "generalist.tokenizers_mod.base.examples": ["Examples"],
    }
    return {name: vars(import_module(home))[name] for home, names in homes.items() for name in names}


GIVEN = {
    "generalist/fitting/README.md": tables,
    "generalist/commands/README.md": nothing,
    "generalist/hf/README.md": model,
    "generalist/shipped/README.md": nothing,
    "generalist/shipped/starter/README.md": sounds,
    "tokenizers_mod/pretrained/README.md": folders,
    "data/README.md": rooms,
    "tokenizers_mod/README.md": rooms,
    "tasks/README.md": rooms,
    "generalist/nn/README.md": rooms,
}
CUTS = (
    (r'time="10m", out="runs/house"', 'time="1s", out="runs/priced", baseline=False'),
    (r'time="1m"', 'time="1s"'),
    (r"audio=\.\.\.", "audio=silence"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return trained(tmp_path_factory.getbasetemp() / "pages")


@pytest.mark.parametrize("page", GIVEN)
def test_the_python_of_a_page_runs(page, world, monkeypatch):
    monkeypatch.chdir(world)
    names = {"__name__": "page"} | GIVEN[page]()
    code = python_of(page)
    assert code
    for block in code:
        for pattern, short in CUTS:
            block = re.sub(pattern, short, block)
        exec(compile(block, page, "exec"), names)


def test_every_page_with_python_is_run_or_says_why_not():
    assert {page for page in PAGES if "tutorials" not in page and python_of(page)} == set(GIVEN) | set(UNRUN)
