"""Command lines on the pages are run in this process, on small made-up data; test_docs_python.py runs the Python.

Times and shots are cut (`CUTS`). What is not run stands in `UNRUN` with the reason, and where it is run instead; a
reason that no line needs any more fails. Tutorials are followed whole by test_tutorials.py. What takes longer than a
few seconds is run by `make soak`.
"""

import re
import shlex

import page_world
import pytest
from test_docs_code import COMMAND, PAGES, lines

from generalist.cli import main
from generalist.recipe.keys import override
from generalist.recipe.load import load_recipe

PAGES = [page for page in PAGES if "tutorials" not in page]
CUTS = (
    (r"--time \d+m", "--time 1s --no-baseline"),
    (r"--workers 2", "--workers 1"),
    (r"--task NAME", "--task digits"),
    (r"--shots 16", "--shots 2"),
    (r"--draws 3", "--draws 1"),
    (r"zero-shot probe prompts full", "zero-shot probe"),
    (r"fit photos/$", "fit photos/ --time 1s --no-baseline --no-encoder"),
    (r"(fit load.csv .*)", r"\1 --time 1s --no-baseline"),
)
# words in capitals, and what stands for them here
WORDS = {
    "RUN": "runs/demo",
    "MODEL": "runs/demo",
    "DATA": "photos/",
    "KIND": "classify",
    "RECIPE": "my_recipe.py",
    "NAME": "demo",
    "KEY": "steps",
    "FOLDER": "photos/",
    "FILE.py": "melody.py",
}
INCOMPLETE = ("generalist data shard|validate|stats",)  # names three commands, each of which has a line of its own
OTHER = "its model is another than the small one that stands for all here: "
UNRUN = {
    r"convert .*|zero-shot models/clip .*": "needs a checkpoint of another project: test_convert_*.py make small ones",
    r"parity .*": "needs a converted model: test_convert_open_clip.py",
    r"train (demo|starter|uni_perceiver_\w+)\b.*": "a training of minutes to days: test_demo_small.py, its keys below",
    r"train (RECIPE modalities|my\.py init|my_recipe\.py init|detect_tiny) ?.*": OTHER + "its keys are read below",
    r"train RECIPE \[.*": "a form, not a line; its parts are run by others",
    r"train .*--run.*": "needs two machines: test_two_ranks.py, test_launch.py",
    r"resume-check runs/two.*": "needs the run of two machines: test_two_ranks.py",
    r"plan .*": "a minute of processor: test_plan.py",
    r"describe .*": OTHER + "test_captioning.py",
    r"predict runs/detect_tiny .*": OTHER + "test_detect_recipes.py",
    r"tune runs/demo sounds/ .*": OTHER + "it hears nothing; test_adapt.py",
    r"eval runs/demo captions:coco/ .*": OTHER + "test_any_to_any.py",
    r"serve .*": "goes on until it is ended: test_serve.py",
    r"check modality backbone": "builds every network that it names: test_modality_examples.py",
    r"fit DATA .*|data shard\|.*": "a form, not a line; it stands elsewhere with its words",
}
LONG = (
    r"tune (?!.*--curve).*(prompts|lora|full).*",
    r"tune .*--curve.*",
    r"inspect .*(explain|concepts).*",
    r"export .*",
    r"fit load.csv .*",
    r"train melody.*",
)


def commands(page: str) -> list[str]:
    """Every `generalist ...` on a page without its first word, those behind && and in $(...) too."""
    found = []
    for line in lines(page):
        for part in re.split(r" && |\$\(|\)\"", line.removeprefix("$ ")):
            if re.match(r"generalist [-a-z]", part):
                found.append(re.sub(r"\s+", " ", part.removeprefix("generalist ")).strip())
    return list(dict.fromkeys(found))


FIRST = {line: page for page in reversed(PAGES) for line in commands(page)}  # a line of several pages is run once


def fits(patterns, line: str) -> str | None:
    return next((pattern for pattern in patterns if re.fullmatch(pattern, line)), None)


def forms(line: str) -> list[str]:
    """What a line stands for: without and with what it brackets, one word of those that a bar parts."""
    short, whole = re.sub(r"\[[^\]]*\]", "", line), re.sub(r"[\[\]]|\.\.\.", "", line)
    every = [short, whole]
    while any("|" in form for form in every):
        every = [
            re.sub(r"\S+\|\S+", word, form, count=1)
            for form in every
            for word in (re.search(r"\S+\|\S+", form) or [""])[0].split("|")
        ]
    return list(dict.fromkeys(every))


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_every_command_line_of_a_page_is_one_that_its_command_takes(page, capsys):
    wrong = []
    for line in commands(page):
        for form in [] if f"generalist {line}" in INCOMPLETE else forms(line):
            try:
                COMMAND.parse_args(shlex.split(form))
            except SystemExit as end:
                wrong += [f"{form}: {capsys.readouterr().err}"] if end.code else []
    assert not wrong


def test_the_keys_of_a_training_on_a_page_are_keys_of_its_recipe(tmp_path, monkeypatch):
    page_world.write(tmp_path)
    page_world.forget()
    monkeypatch.chdir(tmp_path)
    seen = 0
    for line in FIRST:
        found = re.match(r"train (\S+) ([^\[]*)", line)
        keys = [word for word in shlex.split(found[2]) if re.match(r"[\w.]+=", word)] if found else []
        if keys:
            override(load_recipe(found[1].replace("RECIPE", "demo")), *keys)
            seen += 1
    assert seen > 8


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return page_world.trained(tmp_path_factory.getbasetemp() / "pages")


def runnable(long: bool) -> list[str]:
    """The pages with lines to be run, in short or in the long tests."""
    return sorted({page for line, page in FIRST.items() if not fits(UNRUN, line) and bool(fits(LONG, line)) is long})


def run_lines(page: str, world, monkeypatch, capsys, long: bool) -> None:
    page_world.forget()
    monkeypatch.chdir(world)
    for number, line in enumerate(line for line, first in FIRST.items() if first == page):
        if fits(UNRUN, line) or bool(fits(LONG, line)) is not long:
            continue
        for pattern, short in CUTS:
            line = re.sub(pattern, short, line)
        for form in forms(line):
            words = [WORDS.get(word, word) for word in shlex.split(form)]
            words = [f"out{number}" if word == "DIR" and "--out" in words else word for word in words]
            words = ["photos.index" if word == "DIR" else "runs/demo" if word == "demo" else word for word in words]
            if words[0] == "resume-check" and "runs/demo" in words:
                words = ["resume-check", "runs/kept"]  # fit keeps no checkpoint to go on from
            try:
                code = main(words)
            except SystemExit as end:  # --completion and --help end it themselves
                code = end.code
            said = capsys.readouterr()
            assert not code, f"generalist {' '.join(words)}: {said.err[-600:]}"


@pytest.mark.parametrize("page", runnable(False))
def test_the_command_lines_of_a_page_run(page, world, monkeypatch, capsys):
    run_lines(page, world, monkeypatch, capsys, long=False)


@pytest.mark.soak
@pytest.mark.parametrize("page", runnable(True))
def test_the_long_command_lines_of_a_page_run(page, world, monkeypatch, capsys):
    run_lines(page, world, monkeypatch, capsys, long=True)


def test_every_reason_and_every_cut_is_needed_by_a_line():
    assert all(any(re.fullmatch(pattern, line) for line in FIRST) for pattern in (*UNRUN, *LONG))
    assert all(any(re.search(pattern, line) for line in FIRST) for pattern, _ in CUTS)
    share = sum(not fits(UNRUN, line) for line in FIRST) / len(FIRST)
    assert share > 0.4, f"only {share:.0%} of the lines are run"
