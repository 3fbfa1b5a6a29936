"""A checkpoint that is not what was written is never read: the one before it is taken, and one line says so."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.run import train as run
from generalist.run.train import train_run
from generalist.train.checkpoints import checkpoint, manifest
from generalist.train.engines.local import LocalEngine

RECIPE = str(Path(__file__).with_name("tiny.py"))
# every file of a checkpoint of one process; the tokenizer's and the processor's belong to the exported model
FILES = [
    "manifest.json",
    "meta.json",
    "recipe.json",
    "skip.json",
    "state.pt",
    "model/config.json",
    "model/model.safetensors",
    "model/processor_config.json",
    "model/preprocessor_config.json",
    "model/tokenizer.json",
    "model/tokenizer_config.json",
    "model/generalist_remote.py",
    "model/README.md",
    "model/modules.json",
    "model/1_Normalize/config.json",
    "model/sentence_bert_config.json",
    "model/config_sentence_transformers.json",
]


@pytest.fixture(autouse=True)
def only_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "finish", lambda *args: {"done": True})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints after steps 4, 8 and 12, none of which is pruned."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "finish", lambda *args: {"done": True})
        train_run(tiny(checkpoint__keep=9), out, quiet=True)
    return out


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def newest(out: Path) -> Path:
    return checkpoint.latest(out)[1]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path, where: float = 0.5) -> None:
    raw = bytearray(path.read_bytes())
    raw[int(where * len(raw))] ^= 4
    path.write_bytes(bytes(raw))


def foreign(path: Path) -> None:
    """A file of the same kind from elsewhere: that of an earlier checkpoint, else another text of the same length."""
    raw = path.read_bytes()
    before = path.parents[len(path.parts) - path.parts.index("checkpoints") - 3].parent / "step-00000004"
    other = before.joinpath(*path.parts[path.parts.index("checkpoints") + 2 :]).read_bytes()
    path.write_bytes(other if other != raw else b"{}" + b" " * (len(raw) - 2) if raw != b"{}" else b"[]")


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "missing": Path.unlink,
    "cut": cut,
    "flipped": flip,
    "flipped at its end": lambda path: flip(path, 0.999),
    "emptied": lambda path: path.write_bytes(b""),
    "foreign": foreign,
    "a folder": to_folder,
    "a pipe": to_pipe,
}


def test_the_list_of_files_is_that_of_a_checkpoint(whole):
    assert sorted([*manifest.files(newest(whole)), manifest.NAME]) == sorted(FILES)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_whatever_happened_to_a_file_of_the_newest_checkpoint_the_one_before_is_taken(copy, capsys, name, damage):
    DAMAGES[damage](newest(copy) / name)
    assert checkpoint.newest_sound(copy) == (8, copy / "checkpoints" / "step-00000008")
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"step-00000012/{name}" in line and "after step 8" in line


def test_a_sound_checkpoint_is_taken_without_a_word_and_files_beside_it_do_not_matter(copy, capsys):
    (newest(copy) / "notes.txt").write_text("mine")
    assert checkpoint.newest_sound(copy)[0] == 12
    assert capsys.readouterr().err == ""


def test_a_folder_under_another_steps_name_and_a_shard_of_strangers_are_not_taken(copy, capsys):
    shutil.rmtree(newest(copy))
    shutil.copytree(copy / "checkpoints" / "step-00000008", copy / "checkpoints" / "step-00000012")
    (copy / "checkpoints" / "step-00000008" / "more.pt").write_bytes(b"whose?")
    assert checkpoint.newest_sound(copy)[0] == 4
    told = capsys.readouterr().err
    assert "is of step 8" in told and "more.pt is no file of this checkpoint" in told


@pytest.mark.parametrize("name", ["state.pt", "manifest.json", "recipe.json"])
def test_a_resume_past_a_damaged_checkpoint_ends_with_the_same_bytes(whole, copy, capsys, name):
    flip(newest(copy) / name)
    assert main(["train", RECIPE, "checkpoint.keep=9", "--out", str(copy), "--resume", "--quiet", "--json"]) == 0
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and name in told[0]
    mine, theirs = (manifest.read(newest(out))["files"] for out in (copy, whole))
    assert mine == theirs


@pytest.mark.parametrize("command", [["--resume"], ["--auto-resume"]])
def test_with_no_sound_checkpoint_a_resume_ends_in_one_line_and_removes_nothing(copy, capsys, command):
    for _, folder in checkpoint.folders(copy):
        cut(folder / "state.pt")
    before = sorted(copy.rglob("*"))
    assert main(["train", RECIPE, "--out", str(copy), "--quiet", *command]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "no sound checkpoint" in line and "step-00000012/state.pt is broken" in line and "2 before it" in line
    assert sorted(copy.rglob("*")) == before


@pytest.mark.parametrize("name", ["state.pt", "model/model.safetensors", "manifest.json", "skip.json"])
def test_resume_check_names_the_file_with_a_flipped_bit(copy, capsys, name):
    assert main(["resume-check", str(copy)]) == 0
    flip(newest(copy) / name)
    assert main(["resume-check", str(copy)]) == 2
    assert f"step-00000012/{name} is broken" in capsys.readouterr().err


def test_going_back_from_bad_losses_takes_a_sound_checkpoint(tmp_path, monkeypatch, capsys):
    plain, seen = LocalEngine.loss, []

    def loss(self: LocalEngine, batch: Any) -> torch.Tensor:
        seen.append(batch)
        if len(seen) == 10:
            flip(newest(tmp_path / "run") / "state.pt")
        return plain(self, batch) * (float("nan") if len(seen) == 11 else 1)

    monkeypatch.setattr(LocalEngine, "loss", loss)
    train_run(tiny(steps=20, faults__patience=1), tmp_path / "run", quiet=True)
    assert "step-00000008/state.pt is broken" in capsys.readouterr().err
    first = json.loads((tmp_path / "run" / "faults.jsonl").read_text().splitlines()[1])
    assert (first["action"], first["to"]) == ("rolled back", 4)


# --- nothing in a checkpoint can run ---


class Evil:
    """Unpickled by an ordinary reader, this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


def outfit(folder: Path) -> None:
    """Make a folder look as earlier versions left it."""
    (folder / manifest.NAME).unlink()
    (folder / manifest.OLD).write_text("12")


def test_a_pickle_that_would_run_code_is_refused_though_its_checksum_fits(copy, tmp_path, capsys):
    folder = newest(copy)
    (folder / "state.pt").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    torch.save(Evil(tmp_path / "ran"), folder / "rng-0.pt")
    manifest.write(folder, 12, {})
    words = ["train", RECIPE, "steps=12", "checkpoint.keep=9", "--out", str(copy), "--resume", "--quiet"]
    for command in (["resume-check", str(copy)], ["resume-check", str(copy), "--trust"], words, [*words, "--trust"]):
        assert main(command) == 2
        assert "holds more than tensors" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_of_an_earlier_version_is_read_only_where_the_user_trusts_it(copy, capsys):
    for _, folder in checkpoint.folders(copy):
        outfit(folder)
    words = ["train", RECIPE, "checkpoint.keep=9", "--out", str(copy), "--resume", "--quiet", "--json"]
    for command in (["resume-check", str(copy)], words):
        assert main(command) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "step-00000012 was written by an earlier version" in line and "--trust" in line
    assert main(["resume-check", str(copy), "--trust"]) == 0
    shutil.rmtree(newest(copy))
    assert main([*words, "--trust"]) == 0
    assert not manifest.is_old(newest(copy)) and checkpoint.latest(copy)[0] == 12
    with pytest.raises(UserError, match="earlier version"):
        checkpoint.check(copy / "checkpoints" / "step-00000004", 4)


def test_no_reader_of_checkpoints_unpickles_what_it_finds(root):
    asked = [path for room in ("data", "tasks", "tokenizers_mod", "generalist") for path in (root / room).rglob("*.py")]
    loose = [path.name for path in asked if "weights_only=False" in path.read_text(encoding="utf-8")]
    assert loose == []
