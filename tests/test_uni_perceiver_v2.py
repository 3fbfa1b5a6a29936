"""The recipes of the second version, shrunk, train on real pictures, boxes, polygons, captions and texts."""

import json

import pytest
import torch

from generalist.cli import main
from generalist.hf.saved import read_model
from generalist.recipe.keys import override
from generalist.recipe.recipe import Recipe
from generalist.recipes import uni_perceiver_v2 as v2
from generalist.run.train import train_run
from generalist.train.prepare import prepare
from generalist.train.start.initial import load_initial
from tests.roberta import roberta
from tests.small import shrink
from tests.test_pairs import PICTURES, SIGLIP, saved
from tests.test_uni_perceiver_shards import SPLITS, rows, write

TINY = {"base": (16, [1, 1, 1, 1], [1, 2, 2, 4], 4), "large": (24, [1, 1, 1, 1], [1, 2, 2, 4], 4)}
DETECTOR = {
    "d_model": 32,
    "encoder_hidden_dim": 32,
    "decoder_in_channels": [32, 32, 32],
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "decoder_layers": 2,
    "num_denoising": 6,
    "num_queries": 60,
}


@pytest.fixture(scope="module")
def root(shared, tmp_path_factory):
    """Shards of every set that the recipe reads, and the words of their captions."""
    folder = tmp_path_factory.mktemp("shards")
    records = rows(shared)
    write(folder, "coco", records)
    write(folder, "books_wiki", {s: [{"id": r["id"], "text": r["caption"]} for r in own] for s, own in records.items()})
    named = {
        s: [{"id": r["id"], "image": r["image"], "label": i % 3} for i, r in enumerate(own)]
        for s, own in records.items()
    }
    write(folder, "imagenet1k", named, {"classes": ["a street", "a room", "an animal"]})
    return folder, sorted({w for r in records["train"] for w in r["caption"].split()})


def shrunk(size: str, shared, root, encoder: str) -> Recipe:
    """The recipe with one layer a network, 64 x 96 pixels and the sets that are there; its losses and optimiser."""
    recipe = v2.uni_perceiver_v2(size, str(shared / "data" / "coco_open"), str(root), processes=1)
    text, region = recipe.modalities["text"], recipe.modalities["region"]
    text.encoder, text.max_length, text.positions = encoder, 16, 32
    region.height, region.width, region.proposals = 64, 96, 60
    region.config = {**region.config, **DETECTOR}
    region.backbone = {**region.backbone, "image_size": 96}
    kept = ("imagenet1k", "coco", "books_wiki", "coco_caption", "coco_retrieval")
    shrink(recipe, kept, layers=1, batch=4, steps=10)
    for task in recipe.tasks:
        task.share = 1.0
    return recipe


@pytest.mark.parametrize("size", ["base", "large"])
def test_the_shrunk_recipe_trains_all_its_kinds_of_task_one_a_step(shared, root, size, tmp_path, monkeypatch):
    folder, words = root
    monkeypatch.setattr(v2, "SWIN", TINY)
    recipe = shrunk(size, shared, folder, roberta(tmp_path / "encoder", words))
    assert {task.kind for task in recipe.tasks} == {"classify", "segment", "fill", "describe", "retrieve"}
    metrics = train_run(recipe, tmp_path / "run", quiet=True)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    trained = [line for line in log if "loss" in line]
    assert len(trained) == 10 and all(line["loss"] == line["loss"] for line in trained)
    assert {line["task"] for line in trained} == {task.name for task in recipe.tasks}
    assert metrics["tasks"]["coco"]["n_test"] == 39  # all pictures of the split, those without objects too
    for name in ("imagenet1k", "books_wiki", "coco_caption", "coco_retrieval"):
        assert metrics["tasks"][name]["n_test"] == SPLITS["test"]


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """Two towers with random weights, a picture network of timm and a text network of open_clip, as one model."""
    source, out = (tmp_path_factory.mktemp(name) for name in ("library", "towers"))
    saved(source, SIGLIP)
    assert main(["convert", "open-clip", str(source), "--out", str(out)]) == 0
    return out


def of_towers(root, *keys: str) -> Recipe:
    """The recipe of towers with two layers and the sets that are there."""
    recipe = v2.uni_perceiver_v2_towers(str(root), processes=1)
    shrink(recipe, ("imagenet1k", "coco_retrieval"), layers=2, batch=4, steps=4)
    override(recipe, *keys)
    return recipe


def test_the_recipe_of_towers_begins_with_their_answers_and_trains(root, towers, tmp_path):
    recipe = of_towers(root[0], f"init={towers}")
    prepared = prepare(recipe)
    model = prepared.model(recipe).eval()
    load_initial(model, towers)
    assert len(model.encoder.layers) == 2 and model.router is not None  # the general decoder with its experts
    original, _ = read_model(towers)
    names, pictures = ["a cat", "two dogs", "a photo of this"], [PICTURES[0], PICTURES[1]]
    tensors = prepared.processor()(image=pictures, text=names, return_tensors="pt")
    with torch.no_grad():
        before, after = original(**tensors).logits, model(**tensors).logits
    assert before.std() > 1e-3
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)
    metrics = train_run(recipe, tmp_path / "run", quiet=True)
    assert metrics["start"]["tasks"].keys() == {"imagenet1k", "coco_retrieval"}  # which the towers answer untrained
    trained, _ = read_model(tmp_path / "run" / "model")
    assert all(bool(block.gamma1.any()) for block in trained.encoder.layers)


def test_the_recipe_of_towers_takes_encoders_by_name(root, tmp_path):
    words = [f"modalities.text.encoder={roberta(tmp_path / 'encoder', root[1])}", "modalities.text.positions=32"]
    picture = ["modalities.image.class=backbone", "modalities.image.backbone=test_convnext", "modalities.image.size=64"]
    metrics = train_run(
        of_towers(root[0], *picture, *words, "modalities.text.max_length=16"), tmp_path / "run", quiet=True
    )
    assert metrics["tasks"]["coco_retrieval"]["n_test"] == metrics["tasks"]["imagenet1k"]["n_test"] == SPLITS["test"]
