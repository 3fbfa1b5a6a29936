"""The command: help with examples, and for every mistake one line on stderr that says what and how to mend it."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from generalist.cli import COMMANDS, main, parser
from generalist.data.base.errors import UserError

ROOT = Path(__file__).resolve().parent.parent

# A model of every modality that a person can mistake, trained for two steps: enough to be asked the wrong things.
RECIPE = """
from generalist.data.sources.embedded import Embedded
from generalist.recipe.recipe import CheckpointSpec, EngineSpec, Recipe
from generalist.recipe.specs import ModelSpec
from generalist.tasks.kinds.classify import Classify
from generalist.tokenizers_mod.audio.audio import Audio
from generalist.tokenizers_mod.vision.image import Image
from generalist.tokenizers_mod.geometry.points import Points
from generalist.tokenizers_mod.numbers.series import Series
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.tables.table import Table
from generalist.tokenizers_mod.text.text import Text

def recipe():
    return Recipe(
        name="little", about="one task", steps=2,
        modalities={"summary": Summary(), "text": Text(tokenizer="", learn=300, max_length=8, positions=8),
                    "table": Table(), "image": Image(size=8, patch=4), "series": Series(patch=4),
                    "points": Points(groups=4, size=4, hidden=8),
                    "audio": Audio(rate=8000, mels=8, patch=[8, 4], stride=[8, 4])},
        tasks=[Classify(name="wine", source=Embedded("wine"), inputs={"table": "row"}, batch=4)],
        model=ModelSpec(width=16, layers=1, heads=2, hidden=16), engine=EngineSpec(device="cpu", threads=1),
        checkpoint=CheckpointSpec(every=1),
    )
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a finished little run; its recipe stands beside it."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "little_recipe.py").write_text(RECIPE)
    assert main(["train", str(folder / "little_recipe.py"), "--out", str(folder / "run"), "--quiet"]) == 0
    return folder / "run"


def refused(capsys, *words: str) -> str:
    """The one line that a mistake ends in."""
    capsys.readouterr()
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert code == 2, (code, out, err)
    assert err.startswith("generalist: ") and err.count("\n") == 1, err
    assert "Traceback" not in err + out
    return err


def candidates(*names: str) -> list[str]:
    return ["--candidates", *(names or ("red", "green"))]


# --- help ---


def test_every_command_has_a_help_with_an_example(capsys):
    for words in ([], *([name] for name in COMMANDS)):
        with pytest.raises(SystemExit) as stop:
            main([*words, "--help"])
        assert stop.value.code == 0
        text = capsys.readouterr().out
        assert "Example: generalist" in text, words
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize("name", ["train", "eval", "predict"])
def test_the_example_in_the_help_is_a_command_that_parses(name):
    import shlex

    words = shlex.split(COMMANDS[name][2])
    assert words[0] == "generalist"
    assert parser().parse_args(words[1:]).command == name


def test_the_installed_command_ends_in_one_line_and_exit_code_2():
    done = subprocess.run(
        [sys.executable, "-m", "generalist.cli", "trian", "demo"], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 2
    assert done.stderr == "generalist: unknown command 'trian'; did you mean 'train'?\n"
    assert done.stdout == ""


# --- words ---


@pytest.mark.parametrize(
    "words, message",
    [
        (["trian", "demo"], "unknown command 'trian'; did you mean 'train'?"),
        (["train"], "are required: recipe"),
        (["train", "dmeo"], "unknown recipe 'dmeo'; did you mean 'demo'?"),
        (["train", "demo", "--outt", "x"], "'--outt' is not understood here (see generalist train --help)"),
        (["train", "demo", "step=5"], "unknown key 'step'; did you mean 'steps'?"),
        (["train", "demo", "--out", "x", "stpes=5"], "unknown key 'stpes'; did you mean 'steps'?"),
        (["train", "demo", "steps"], "'steps' is not key=value"),
        (["train", "demo", "steps=many"], "steps='many': this key takes int"),
        (["train", "demo", "optimizer.lr=nan"], "this key takes float"),
        (["train", "demo", "model.heads=7"], "model.heads=7 does not divide model.width=96; use heads=6"),
        (["train", "demo", "modalities.imge.size=8"], "did you mean 'modalities.image'?"),
        (["train", "demo", "--resume", "--overwrite"], "give one of them"),
        (["train", "lost.py"], "no recipe file lost.py"),
        (["predict", "x", "--candidates"], "argument --candidates: expected at least one argument"),
    ],
)
def test_mistaken_words_are_named_with_the_nearest_right_one(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *words)
    assert not list(tmp_path.iterdir())  # nothing was begun


def test_debug_gives_the_traceback_before_or_after_the_command():
    for words in (["--debug", "train", "dmeo"], ["train", "dmeo", "--debug"]):
        with pytest.raises(UserError, match="unknown recipe"):
            main(words)


def test_an_error_that_is_no_mistake_of_the_users_is_one_line_too(monkeypatch, capsys):
    def broken(args):
        raise RuntimeError("something\nin two lines")

    monkeypatch.setattr("generalist.commands.info.run", broken)
    assert main(["info"]) == 1
    assert capsys.readouterr().err == "generalist: RuntimeError: something (--debug shows where)\n"
    with pytest.raises(RuntimeError):
        main(["info", "--debug"])


def test_a_command_says_on_a_terminal_that_it_begins_before_it_imports_anything(monkeypatch, capsys):
    said = []
    monkeypatch.setattr("generalist.commands.predict.run", lambda args: said.append(capsys.readouterr().err) or 0)
    words = ["predict", "runs/demo", "--text", "x"]
    assert main(words) == 0 and said == [""]  # not into files and pipes
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: True)
    assert main(words) == 0 and said[1:] == ["generalist predict ...\n"]


# --- run folders ---


@pytest.mark.parametrize("command", ["eval", "report", "predict"])
def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys, command):
    more = ["--text", "x", *candidates()] if command == "predict" else []
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert str(folder) in refused(capsys, command, folder, *more)


def damaged(run: Path, folder: Path, name: str, content: bytes) -> Path:
    """A copy of the run in which one file is spoilt."""
    copy = folder / "copy"
    shutil.copytree(run, copy)
    (copy / name).write_bytes(content)
    return copy


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("recipe.json", b"", "is not JSON"),
        ("recipe.json", b'{"class": "os:system"}', "is not a dataclass"),
        ("model/config.json", b"{", "cannot be read"),
        ("model/model.safetensors", b"", "cannot be read"),
        ("model/model.safetensors", b"\x00" * 100, "cannot be read"),
        ("model/tokenizer.json", b"{}", "cannot be read"),
    ],
)
def test_a_damaged_run_is_refused(run, tmp_path, capsys, name, content, message):
    assert message in refused(capsys, "eval", damaged(run, tmp_path, name, content))


def test_a_run_without_its_model_says_how_to_go_on(run, tmp_path, capsys):
    copy = damaged(run, tmp_path, "recipe.json", (run / "recipe.json").read_bytes())
    shutil.rmtree(copy / "model")
    assert "--resume" in refused(capsys, "eval", copy)


def test_a_folder_that_holds_a_run_is_not_overwritten(run, capsys):
    recipe = run.parent / "little_recipe.py"
    assert "already holds a run; --resume" in refused(capsys, "train", recipe, "--out", run)
    assert "was trained with another recipe" in refused(capsys, "train", recipe, "seed=5", "--out", run, "--resume")
    assert "no checkpoint to resume" in refused(capsys, "train", recipe, "--out", run.parent / "new", "--resume")


# --- inputs ---


def no_file(folder: Path) -> str:
    return str(folder / "lost.file")


def empty(folder: Path, name: str) -> str:
    (folder / name).write_bytes(b"")
    return str(folder / name)


def binary(folder: Path, name: str) -> str:
    (folder / name).write_bytes(bytes(range(128, 256)) * 20)
    return str(folder / name)


def cut_picture(folder: Path) -> str:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "whole.png")
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:2000])
    return str(folder / "cut.png")


def saved(folder: Path, array: np.ndarray) -> str:
    np.save(folder / "array.npy", array)
    return str(folder / "array.npy")


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def wine_row(folder: Path, **changes: str | None) -> str:
    """A row of the wine table as .csv, columns changed, added, or (None) left out."""
    from generalist.data.sources.embedded import Embedded

    row = {k: str(v) for k, v in Embedded("wine").open("test")[0]["row"].items()}
    row = {k: v for k, v in (row | changes).items() if v is not None}
    return written(folder, "row.csv", ",".join(row) + "\n" + ",".join(row.values()) + "\n")


@pytest.mark.parametrize(
    "modality, make, message",
    [
        ("image", no_file, "no file"),
        ("image", lambda f: empty(f, "x.png"), "cannot be read"),
        ("image", lambda f: binary(f, "x.png"), "cannot be read"),
        ("image", cut_picture, "cannot be read"),
        ("audio", no_file, "no file"),
        ("audio", lambda f: empty(f, "x.wav"), ""),
        ("audio", lambda f: binary(f, "x.wav"), ""),
        ("points", lambda f: empty(f, "x.npy"), ""),
        ("points", lambda f: saved(f, np.full((50, 3), np.nan)), "NaN"),
        ("points", lambda f: saved(f, np.full((50, 3), np.inf)), "infinite"),
        ("points", lambda f: saved(f, np.zeros((50, 2))), "expected (n, 3)"),
        ("series", lambda f: empty(f, "x.csv"), ""),
        ("series", lambda f: saved(f, np.array([1.0, np.inf, 2.0])), "infinite"),
        ("series", lambda f: saved(f, np.array([np.nan, np.nan])), "missing"),
        ("series", lambda f: written(f, "x.txt", "1 2 3"), "unknown file type"),
        ("table", no_file, "no file"),
        ("table", lambda f: empty(f, "x.csv"), "is empty"),
        ("table", lambda f: binary(f, "x.csv"), "holds no row"),
        ("table", lambda f: written(f, "x.json", "[1, 2"), "not JSON"),
        ("table", lambda f: written(f, "x.json", "[]"), "holds no row"),
        ("table", lambda f: written(f, "x.json", "7"), "does not hold a row"),
        ("table", lambda f: written(f, "x.csv", "alcohol\n"), "holds no row"),
        ("table", lambda f: written(f, "x.csv", "alcohol\n1,2,3\n"), "cannot be read"),
        ("table", lambda f: wine_row(f, alcohol=None), "the row lacks ['alcohol']"),
        ("table", lambda f: wine_row(f, alcohl="1"), "no column 'alcohl'; did you mean 'alcohol'?"),
        ("table", lambda f: wine_row(f, alcohol="inf"), "expected a finite number"),
        ("table", lambda f: wine_row(f, alcohol="strong"), "expected a finite number"),
        ("text", lambda f: empty(f, "x.txt"), "is empty"),
        ("text", lambda f: binary(f, "x.txt"), "is not UTF-8 text"),
        ("text", lambda f: " \t ", "is empty"),
    ],
)
def test_an_input_that_cannot_be_read_is_refused(run, tmp_path, capsys, modality, make, message):
    err = refused(capsys, "predict", run, f"--{modality}", make(tmp_path), *candidates())
    assert message in err
    assert modality in err


@pytest.mark.parametrize(
    "words, message",
    [
        (candidates(), "no input given; add one such as --image FILE"),
        (["--text", "x", *candidates("one")], "1 candidate(s) given: a likelihood needs at least two"),
        (["--text", "x", *candidates("one", "one")], "candidates stand twice"),
        (["--text", "x", *candidates("one", "")], "is empty"),
        (["--text", "x"], "give --candidates"),
        (["--text", "x", "--task", "wien"], "no task 'wien'; did you mean 'wine'?"),
        (["--input", "colour=x", *candidates()], "no modality 'colour'"),
        (["--input", "colour", *candidates()], "is not MODALITY=FILE"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(run, capsys, words, message):
    assert message in refused(capsys, "predict", run, *words)


def test_a_model_without_the_modality_names_those_it_has(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run / "model", copy)
    processor = json.loads((copy / "processor_config.json").read_text())
    del processor["modalities"]["audio"]
    (copy / "processor_config.json").write_text(json.dumps(processor))
    assert "no modality 'audio'" in refused(capsys, "predict", copy, "--audio", "x.wav", *candidates())


def test_text_in_a_script_that_training_never_saw_is_ranked_all_the_same(run, capsys):
    # sub-words are made of bytes, so no script is unknown
    assert main(["predict", str(run), "--text", "добрый день, 你好", *candidates("красный", "green"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["answers"]) == 2


def test_text_in_a_script_that_the_tokenizer_does_not_know_is_refused(run, tmp_path, capsys):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "red": 1, "green": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens(["<|endoftext|>", "<|spe|>"])
    copy = tmp_path / "copy"
    shutil.copytree(run / "model", copy)
    processor = json.loads((copy / "processor_config.json").read_text())
    processor["modalities"]["text"]["tokenizer"] = words.to_str()
    (copy / "processor_config.json").write_text(json.dumps(processor))
    assert "the tokenizer knows no symbol of" in refused(capsys, "predict", copy, "--text", "добрый", *candidates())


# --- disks ---


def test_a_folder_that_cannot_be_made_is_named(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    recipe = run.parent / "little_recipe.py"
    assert "cannot write to" in refused(capsys, "train", recipe, "--out", tmp_path / "file" / "run")


def test_a_read_only_folder_is_named(run, tmp_path, capsys, monkeypatch):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    recipe = run.parent / "little_recipe.py"
    if os.access(locked, os.W_OK):  # an administrator may write everywhere: say no in the system's own words

        def denied(self, *args, **kwargs):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

        monkeypatch.setattr(Path, "mkdir", denied)
    err = refused(capsys, "train", recipe, "--out", locked / "run")
    assert "Permission denied" in err and "--out" in err


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 256 kB; skips where the system does not let us make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("only an administrator can make a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_in_one_line_and_leaves_no_half_checkpoint(run, small_disk, capsys):
    err = refused(
        capsys, "train", run.parent / "little_recipe.py", "model.width=64", "--out", small_disk / "run", "--quiet"
    )
    assert "No space left" in err or "disk space" in err
    assert not list((small_disk / "run").glob("checkpoints/*.partial"))


def test_a_full_disk_is_told_in_one_line_wherever_the_system_reports_it(run, tmp_path, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("torch.save", full)
    err = refused(capsys, "train", run.parent / "little_recipe.py", "--out", tmp_path / "run", "--quiet")
    assert "No space left on device" in err
