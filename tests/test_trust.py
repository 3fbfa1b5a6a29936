"""What a stranger's file may set in motion: no command and no import, through whichever door it is read."""

import functools
import http.server
import json
import sys
import threading

import pytest
import torch
from clients import save
from transformers import AutoModel, AutoProcessor

import generalist  # noqa: F401  registers the model
from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.data.base.trust import trusting
from generalist.data.sources.places import source_at
from generalist.data.sources.shards import Shards
from generalist.hf.predict import load_model
from generalist.recipe.json import from_json, to_json
from generalist.recipe.load import load_recipe, read_recipe

EVIL = "evil_module_of_a_stranger"


@pytest.fixture()
def marker(tmp_path, monkeypatch):
    """A file that is there once a stranger's command or module has run; the module can be imported by its name."""
    path = tmp_path / "ran"
    (tmp_path / "site").mkdir()
    (tmp_path / f"site/{EVIL}.py").write_text(
        f"from pathlib import Path\nPath({str(path)!r}).touch()\n"
        f"from generalist.tokenizers_mod.text.summary import Summary\n"
        "class Note(Summary):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield path
    sys.modules.pop(EVIL, None)


@pytest.fixture()
def index(tmp_path, marker):
    """A folder whose index names a command."""
    folder = tmp_path / "set/train"
    folder.mkdir(parents=True)
    shards = [{"url": f"pipe:touch {marker}", "nsamples": 1}]
    (folder / "index.json").write_text(json.dumps({"wids_version": 1, "shardlist": shards}))
    return tmp_path / "set"


@pytest.fixture()
def server(index):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(index))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.parametrize("there", ["local", "http"])
def test_an_index_runs_no_command(there, index, server, marker, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GENERALIST_CACHE", str(tmp_path / "cache"))
    place = str(index) if there == "local" else server
    with pytest.raises(UserError, match=r"index.json names the command 'pipe:touch .* would run in a shell"):
        source_at(place).open("train")
    assert main(["data", "stats", place, "--set", "retries=0"]) == 2
    assert "names the command" in capsys.readouterr().err
    assert not marker.exists()


def test_an_index_from_afar_names_no_file_of_this_machine(index, server, tmp_path, monkeypatch):
    monkeypatch.setenv("GENERALIST_CACHE", str(tmp_path / "cache"))
    for url in ("file:///etc/hostname", "/etc/hostname"):
        (index / "train/index.json").write_text(json.dumps({"shardlist": [{"url": url, "nsamples": 1}]}))
        with pytest.raises(UserError, match="an index from afar may not"):
            source_at(server).open("train")


def piped(marker, spelt="pipe:touch {}"):
    """A recipe in JSON whose source is a command."""
    recipe = to_json(load_recipe("demo"))
    source = {"class": "generalist.data.sources.shards:Shards", "splits": {"train": spelt.format(marker)}}
    recipe["tasks"][0]["source"] = source
    return recipe


@pytest.mark.parametrize("spelt", ["pipe:touch {}", "p{{ip,x}}e:touch {}", ["data.tar", "pipe:touch x"]])
def test_a_saved_recipe_runs_no_command_however_it_is_spelt(spelt, marker, tmp_path, capsys):
    recipe = piped(marker) if isinstance(spelt, list) else piped(marker, spelt)
    if isinstance(spelt, list):
        recipe["tasks"][0]["source"]["splits"]["train"] = spelt
    (tmp_path / "run/model").mkdir(parents=True)
    (tmp_path / "run/model/config.json").write_text("{}")
    (tmp_path / "run/recipe.json").write_text(json.dumps(recipe))
    for words in (
        ["eval", str(tmp_path / "run")],
        ["train", str(tmp_path / "run/recipe.json"), "--out", str(tmp_path)],
    ):
        assert main(words) == 2
        assert "the saved recipe names the command 'pipe:touch" in capsys.readouterr().err
    assert not marker.exists()
    # ... and is the user's own word where he says so, or writes it himself
    with trusting(True):
        assert from_json(recipe).tasks[0].source.splits["train"]
    assert Shards(splits={"train": f"pipe:cat {marker}"}).splits


def test_a_saved_recipe_imports_nothing_that_was_not_there(marker, tmp_path, capsys):
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "model/config.json").write_text("{}")
    for place, name in (("source", f"{EVIL}:Note"), ("source", "antigravity:x"), ("source", "this:x")):
        recipe = to_json(load_recipe("demo"))
        recipe["tasks"][0][place] = {"class": name}
        (run / "recipe.json").write_text(json.dumps(recipe))
        assert main(["eval", str(run)]) == 2
        said = capsys.readouterr().err
        assert f"would import the module {name.partition(':')[0]!r}" in said and "--trust" in said
        assert len(said.splitlines()) == 1
    assert not marker.exists() and not {"antigravity", "this", EVIL} & sys.modules.keys()
    with trusting(True), pytest.raises(UserError, match="no 'x' in it"):
        recipe["tasks"][0]["source"] = {"class": "colorsys:x"}
        from_json(recipe)


@pytest.mark.parametrize(
    "name",
    ["subprocess:Popen", "generalist.data.files.cache:SizedCache", "generalist.data.base.errors:told", "torch:Tensor"],
)
def test_a_saved_recipe_makes_no_other_objects(name, tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps({"class": name, "folder": str(tmp_path / "made")}))
    with pytest.raises(UserError, match=r"which is (not a dataclass|no modality, task, source or other part of one)"):
        read_recipe(tmp_path / "recipe.json")


@pytest.fixture()
def model(tmp_path, marker):
    """A model folder whose configuration and processor name a stranger's module."""
    folder = tmp_path / "model"
    save(folder)
    for name in ("config.json", "processor_config.json"):
        values = json.loads((folder / name).read_text())
        values["modalities"]["note"] = {"class": f"{EVIL}:Note"}
        (folder / name).write_text(json.dumps(values))
    return folder


def test_a_model_folder_imports_nothing_that_was_not_there(model, marker, capsys):
    words = ["predict", str(model), "--text", "a red seven", "--candidates", "a", "b"]
    assert main(words) == 2
    assert f"would import the module {EVIL!r}" in capsys.readouterr().err
    with pytest.raises(UserError, match="would import the module"):
        load_model(model)
    with pytest.raises(UserError, match="would import the module"):
        AutoModel.from_pretrained(model)
    with pytest.raises(UserError, match="would import the module"):
        AutoProcessor.from_pretrained(model)
    assert not marker.exists()


def test_trust_remote_code_allows_it(model, marker):
    assert "note" in AutoModel.from_pretrained(model, trust_remote_code=True).modalities
    assert marker.exists()
    processor = AutoProcessor.from_pretrained(model, trust_remote_code=True)
    assert torch.is_tensor(processor(text="a red seven")[0][1].data["ids"])


def test_trust_on_the_command_line_allows_it_for_that_command(model, marker, capsys):
    words = ["predict", str(model), "--text", "a red seven", "--candidates", "a", "b"]
    main([*words, "--trust"])
    assert marker.exists()
    capsys.readouterr()
    sys.modules.pop(EVIL)
    assert main(words) == 2 and "would import" in capsys.readouterr().err


def test_what_the_program_has_imported_needs_no_word(model, marker):
    __import__(EVIL)
    assert "note" in AutoModel.from_pretrained(model).modalities
