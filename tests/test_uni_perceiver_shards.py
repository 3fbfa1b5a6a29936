"""The published pre-training, shrunk, trains on webdataset shards of real pictures and captions, named both ways."""

import json
from pathlib import Path

import pytest
import webdataset

from generalist.data.files.tar import scan
from generalist.data.sources.annotations.captions import CocoCaptions
from generalist.data.stream.source import Records
from generalist.data.tools.shard_writer import Plan, write_split
from generalist.recipe.recipe import Recipe
from generalist.recipes.uni_perceiver import modalities, pretraining, stage2
from generalist.run.train import train_run
from generalist.tokenizers_mod.text.bpe import train_bpe
from generalist.tokenizers_mod.text.text import Text
from tests.small import Listed, shrink

SPLITS = {"train": 40, "val": 6, "test": 6}


def rows(shared: Path) -> dict[str, list[dict]]:
    """Real pictures with one caption each, by split."""
    coco = CocoCaptions(str(shared / "data" / "coco_open"))
    found = {name: coco.open(name) for name in ("train", "val")}
    held = found["val"]
    parts = {"train": (found["train"], 0), "val": (held, 0), "test": (held, SPLITS["val"])}
    kept = {}
    for split, (records, first) in parts.items():
        chosen = [records[i] for i in range(first, min(first + SPLITS[split], len(records)))]
        kept[split] = [{"id": r["id"], "image": Path(r["image"]), "caption": r["captions"][0]} for r in chosen]
    return kept


def write(root: Path, name: str, records: dict[str, list[dict]], info: dict | None = None) -> None:
    """As `generalist data shard` writes: members called by the fields."""
    for split in records:
        write_split(Plan(Listed(records, info or {}), split, root / name, per=16))


def write_plain(root: Path, name: str, records: dict[str, list[dict]]) -> None:
    """As others write webdataset shards: members called by their endings, jpg and txt."""
    for split, own in records.items():
        folder = root / name / split
        folder.mkdir(parents=True)
        with webdataset.TarWriter(str(folder / "000000.tar")) as tar:
            for i, record in enumerate(own):
                tar.write({"__key__": f"{i:06d}", "jpg": record["image"].read_bytes(), "txt": record["caption"]})
        scan(folder / "000000.tar").save(folder / "000000.tar.idx")
        line = {"url": "000000.tar", "nsamples": len(own)}
        (folder / "index.json").write_text(json.dumps({"wids_version": 1, "shardlist": [line]}))


def shrunk(root: Path, words: list[str], moe: bool = False) -> Recipe:
    """`uni_perceiver_base` with two layers, 32 pixels and the sets that are there; its weights, losses, optimiser."""
    recipe = pretraining("base", str(root), processes=1, moe=moe)
    text = Text(tokenizer=train_bpe(words, 330).to_str(), max_length=16, positions=32, word_std=0.02, position_std=0.02)
    kept = {"summary", "text", "image"}
    recipe.modalities = {k: v for k, v in modalities(32, text).items() if k in kept}
    shrink(recipe, ("books_wiki", "coco_caption", "cc3m_retrieval"), layers=2, batch=6, steps=5)
    return recipe


@pytest.fixture(scope="module")
def root(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    records = rows(shared)
    write(folder, "coco", records)
    write_plain(folder, "cc3m", records)
    lines = {s: [{"id": r["id"], "text": r["caption"]} for r in own] for s, own in records.items()}
    write(folder, "books_wiki", lines)
    return folder, [r["caption"] for r in records["train"]]


@pytest.mark.parametrize("moe", [False, True], ids=["dense", "experts"])
def test_the_shrunk_pre_training_runs_on_shards_and_its_second_stage_goes_on(root, moe, tmp_path):
    folder, words = root
    recipe = shrunk(folder, words, moe)
    assert {task.kind for task in recipe.tasks} == {"fill", "describe", "retrieve"}
    metrics = train_run(recipe, tmp_path / "one", quiet=True)
    assert set(metrics["tasks"]) == {"books_wiki", "coco_caption", "cc3m_retrieval"}
    assert all(line["n_test"] == 6 and line["value"] == line["value"] for line in metrics["tasks"].values())
    log = [json.loads(line) for line in (tmp_path / "one" / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in log if "loss" in line]
    assert len(losses) == 5 and all(loss == loss for loss in losses)

    if not moe:
        recipe = shrunk(folder, words)
        text = recipe.modalities["text"]
        recipe = stage2(recipe, processes=1)
        recipe.modalities = {k: v for k, v in modalities(48, text).items() if k in ("summary", "text", "image")}
        recipe.init, recipe.steps, recipe.optimizer.warmup = str(tmp_path / "one"), 2, 1
        for task in recipe.tasks:
            task.batch = 4
        train_run(recipe, tmp_path / "two", quiet=True)
        told = json.loads((tmp_path / "two" / "init.json").read_text())
        assert [line.partition(":")[0] for line in told["reshaped"]] == ["tokenizers.image.spatial"]
        assert told["notes"] == told["unexpected"] == []


def test_both_ways_of_naming_members_give_the_same_records(root):
    folder, _ = root
    recipe = shrunk(folder, root[1])
    sources = {task.name: task.source for task in recipe.tasks}
    one: Records = sources["coco_caption"].open("val")
    two: Records = sources["cc3m_retrieval"].open("val")
    assert len(one) == len(two) == 6
    found = [{row["caption"]: row["image"].size for row in (r[i] for i in range(6))} for r in (one, two)]
    assert found[0] == found[1] and len(found[0]) > 1
