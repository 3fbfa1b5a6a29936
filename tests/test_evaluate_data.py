"""`generalist eval MODEL DATA`: every form of data, several kinds of task, what leaked, and mistakes in one line."""

import csv
import io
import json
import math
from pathlib import Path

import clients
import numpy as np
import pytest
from PIL import Image

from generalist.cli import main
from generalist.data.stream.source import Records
from generalist.data.tools.known import Known
from generalist.evaluate.predictions import derived
from generalist.tasks.candidates.names import Numbers
from generalist.tokenizers_mod.numbers.number import Number

NAMES = ["a red seven", "a blue nine", "some words"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model folder that knows a regression task's candidates and ten people's answers."""
    folder = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clients, "modalities", lambda kept=clients.modalities: {**kept(), "number": Number()})
        found, processor = clients.model_and_processor(scales=["default", "classify", "regress", "retrieve"])
    numbers = Numbers(edges=[-3.0, -1.0, 0.0, 1.0, 3.0], mean=10.0, std=2.0)
    found.save_pretrained(folder)
    processor.candidate_sets = {"wages": numbers.to_dict()}
    processor.tasks = {
        "wages": {"kind": "regress", "scale": "regress", "inputs": ["table"], "answers": ["number"]},
        "names": {"kind": "classify", "scale": "classify", "inputs": ["image"], "answers": ["text"]},
        "heard": {"kind": "retrieve", "scale": "retrieve", "inputs": ["audio"], "answers": ["text"]},
    }
    processor.save_pretrained(folder)
    return folder


def scene(i: int) -> np.ndarray:
    """A picture that no other number's looks like: a few large blots."""
    rng = np.random.default_rng(i)
    small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((24, 24), Image.Resampling.BICUBIC))


def rows(split: str) -> list[dict]:
    first, count = {"train": (0, 6), "test": (100, 5)}[split]
    return [{"id": f"{split}{i}", "image": scene(first + i), "label": i % 3} for i in range(count)]


def as_folder(place: Path) -> list[str]:
    for split in ("train", "test"):
        for row in rows(split):
            file = place / split / NAMES[row["label"]] / f"{row['id']}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(row["image"]).save(file)
    return [str(place)]


def as_shards(place: Path) -> list[str]:
    as_folder(place / "photos")
    assert main(["data", "shard", str(place / "photos"), str(place / "shards"), "--per", "4"]) == 0
    return [str(place / "shards")]


def as_datasets(place: Path) -> list[str]:
    import datasets

    features = datasets.Features(
        {"id": datasets.Value("string"), "image": datasets.Image(), "label": datasets.ClassLabel(names=sorted(NAMES))}
    )
    sets = {}
    for split in ("train", "test"):
        columns = {key: [row[key] for row in rows(split)] for key in ("id", "image")}
        columns["image"] = [Image.fromarray(image) for image in columns["image"]]
        columns["label"] = [sorted(NAMES).index(NAMES[row["label"]]) for row in rows(split)]
        sets[split] = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict(sets).save_to_disk(place / "set")
    return [str(place / "set")]


def as_table(place: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def encoded(image: np.ndarray) -> dict:
        out = io.BytesIO()
        Image.fromarray(image).save(out, "PNG")
        return {"bytes": out.getvalue(), "path": None}

    columns = {"image": [encoded(row["image"]) for row in rows("test")]}
    columns["kind"] = [NAMES[row["label"]] for row in rows("test")]
    pq.write_table(pa.table(columns), place / "rows.parquet")
    return [
        str(place / "rows.parquet"),
        "--set",
        "label=kind",
        "--set",
        "test=0",
        "--set",
        "val=0",
        "--split",
        "train",
        "label=kind",
    ]


@pytest.mark.parametrize("form", [as_folder, as_shards, as_datasets, as_table])
def test_any_form_of_data_is_scored_and_every_number_follows_from_the_file(model, tmp_path, capsys, form):
    words = form(tmp_path)
    out = tmp_path / "out"
    capsys.readouterr()
    assert main(["eval", str(model), *words, "--input", "image", "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "result.json").read_text())
    assert printed["n"] == 5 and sorted(printed["candidates"]) == sorted(NAMES)
    assert derived(out / "predictions.jsonl") == pytest.approx({k: v["value"] for k, v in printed["measures"].items()})
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    names, answers = lines[0]["names"], lines[1:]
    # the same model asked directly, picture by picture, gives the same likelihoods
    from generalist.hf.predict import load_model

    found, processor = load_model(model)
    for i, line in enumerate(answers):
        row = next((r for r in rows("test") if r["id"] in line["id"]), rows("test")[i])  # a table's rows have numbers
        assert NAMES[row["label"]] == names[line["label"]]
        expected = found.log_likelihood(processor(image=[row["image"]]), processor.candidates(names), printed["scale"])
        assert line["log_p"] == pytest.approx(expected[0].tolist(), abs=1e-4)


def test_without_a_word_on_what_goes_in_it_is_the_picture(model, tmp_path, capsys):
    """And never nothing: the answers differ, and only what is the same counts as leaked."""
    place = as_folder(tmp_path / "photos")[0]
    found = []
    for words in ([], ["--input", "image=image"]):
        capsys.readouterr()
        assert main(["eval", str(model), place, "--leakage", "--json", "--out", str(tmp_path / "out"), *words]) == 0
        lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()[1:]
        found.append((json.loads(capsys.readouterr().out), [json.loads(line)["log_p"] for line in lines]))
    assert found[0] == found[1] and len({tuple(p) for p in found[0][1]}) == 5
    assert found[0][0]["leakage"]["count"] == 0


def test_a_limit_takes_records_of_every_class_of_a_sorted_set(model, tmp_path, capsys):
    for name in NAMES:
        for i in range(4):
            place = tmp_path / "sorted" / "test" / name / f"{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(scene(i)).save(place)
        (tmp_path / "sorted" / "train" / name).mkdir(parents=True)
    words = ["zero-shot", str(model), str(tmp_path / "sorted"), "--limit", "3", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    _, *lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert sorted(line["label"] for line in lines) == [0, 1, 2]
    capsys.readouterr()


def test_other_names_and_a_template_change_the_candidates(model, tmp_path, capsys):
    place = as_folder(tmp_path)
    words = ["zero-shot", str(model), *place, "--classes", "one", "two", "three", "--template", "a photo of {}"]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["candidates"] == [f"a photo of {n}" for n in ("one", "two", "three")]


def test_labels_come_from_a_file_and_mistakes_in_it_are_named(model, tmp_path, capsys):
    as_folder(tmp_path / "photos")
    labels = tmp_path / "labels.txt"
    words = ["eval", str(model), str(tmp_path / "photos"), "--input", "image", "--labels", str(labels)]
    labels.write_text("\n".join(["a blue nine", "2", "0", "some words", "1"]) + "\n")
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    _, *lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    found = sorted(NAMES)
    assert [line["label"] for line in lines] == [found.index("a blue nine"), 2, 0, found.index("some words"), 1]
    labels.write_text("a blue nine\n")
    assert "holds 1 labels, the data 5 records" in refused(capsys, *words)
    labels.write_text("\n".join(["a blue nine"] * 4 + ["a blue eight"]))
    assert "unknown class 'a blue eight'" in refused(capsys, *words)
    labels.write_text("\n".join(["7"] * 5))
    assert "class index 7 is not one of 0..2" in refused(capsys, *words)
    labels.unlink()
    assert "cannot read the labels" in refused(capsys, *words)


def wages(place: Path) -> Path:
    with place.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "job", "wage"])
        writer.writerows([[30 + i, ("cook", "smith", "clerk")[i % 3], 8 + i] for i in range(9)])
    return place


def test_a_task_of_the_model_is_scored_on_other_data_with_its_own_candidates(model, tmp_path, capsys):
    words = ["eval", str(model), str(wages(tmp_path / "people.csv")), "target=wage", "--task", "wages"]
    words += ["--set", "test=0", "--set", "val=0", "--split", "train", "--set", 'drop=["wage"]', "--input", "table=row"]
    assert main([*words, "--out", str(tmp_path / "out"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["kind"] == "numbers" and result["scale"] == "regress" and result["n"] == 9
    assert {"mse", "mae", "CRPS"} <= set(result["measures"])
    assert result["chance"]["mae"] == pytest.approx(np.abs(np.arange(9) + 8 - 10.0).mean())
    assert derived(tmp_path / "out" / "predictions.jsonl")["CRPS"] == pytest.approx(result["measures"]["CRPS"]["value"])


def test_what_is_asked_of_a_table_is_no_part_of_its_rows(model, tmp_path, capsys):
    place = str(wages(tmp_path / "people.csv"))
    base = ["--set", "test=0", "--set", "val=0", "--split", "train", "--input", "table=row", "--json"]
    assert main(["eval", str(model), place, "target=wage", "--task", "wages", *base]) == 0  # else: no column 'wage'
    number = json.loads(capsys.readouterr().out)
    assert main(["eval", str(model), place, "target=wage", "--task", "wages", "--set", 'drop=["wage"]', *base]) == 0
    assert json.loads(capsys.readouterr().out) == number
    assert main(["zero-shot", str(model), place, "--label", "job", "--set", "drop=[]", *base]) == 2
    assert "no column 'wage'" in capsys.readouterr().err  # the model's table has age and job, not wage
    frame = Path(place).read_text().replace("job", "work")
    (tmp_path / "named.csv").write_text(frame)
    assert main(["zero-shot", str(model), str(tmp_path / "named.csv"), "--label", "jobb", *base]) == 2
    assert "no column 'jobb'" in capsys.readouterr().err


def test_questions_with_ten_answers_give_vqa_accuracy(model, tmp_path, capsys):
    answers = {"id": "0", "question": "what is it", "answer": ["seven"] * 8 + ["nine"] * 2}
    with (tmp_path / "q.jsonl").open("w") as file:
        for i in range(4):
            file.write(json.dumps({**answers, "id": str(i), "words": f"this is thing {i}"}) + "\n")
    words = ["eval", str(model), str(tmp_path / "q.jsonl"), "--task", "answer", "--input", "text=words"]
    words += ["--classes", "seven", "nine", "--set", "test=0", "--set", "val=0", "--split", "train", "--json"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    said = result["measures"]["accuracy"]["value"]  # seven: fully right; nine: two of ten people, .6
    assert result["measures"]["VQA accuracy"]["value"] == pytest.approx(said + 0.6 * (1 - said))


def test_retrieval_of_any_two_modalities_gives_recall_both_ways(model, tmp_path, capsys):
    folder = tmp_path / "captioned"
    folder.mkdir()
    for i in range(6):
        Image.fromarray(scene(i)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"this is a photo of {NAMES[i % 3]} and {i}")
    words = ["eval", str(model), str(folder), "--task", "retrieve", "--input", "image", "--partner", "text"]
    assert (
        main([*words, "--set", "test=0", "--set", "val=0", "--split", "train", "--set", "labelled=false", "--json"])
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert {"recall@1", "recall@1 forward", "recall@5 backward", "median rank"} <= set(result["measures"])
    assert result["chance"]["recall@1"] == pytest.approx(1 / 6)


# --- leakage ---


def test_what_was_trained_on_is_found_to_the_byte_and_by_its_looks_and_other_samples_are_not():
    big = [np.asarray(Image.fromarray(scene(i)).resize((96, 64), Image.Resampling.BICUBIC)) for i in range(40)]
    known = Known(Records([{"id": f"t{i}", "image": image, "label": 0} for i, image in enumerate(big)]), {"image"})
    out = io.BytesIO()
    Image.fromarray(big[7]).save(out, "JPEG", quality=60)
    asked = [big[31].copy(), *(scene(1000 + i) for i in range(9)), Image.open(out), np.moveaxis(big[3] / 255.0, -1, 0)]
    found = known.find(Records([{"id": str(i), "image": image, "label": 1} for i, image in enumerate(asked)]))
    assert found == [(0, "exact", "t31"), (10, "alike", "t7"), (11, "alike", "t3")]


def test_sounds_are_alike_at_another_loudness_and_texts_in_other_letters():
    t = np.arange(8000) / 8000
    waves = [np.sin(2 * np.pi * t * f * (1 + t * s)) for f in (300, 700, 1500) for s in (0, 0.5, -0.5)]
    known = Known(Records([{"id": str(i), "audio": wave.astype(np.float32)} for i, wave in enumerate(waves)]))
    asked = [{"audio": (0.3 * waves[4]).astype(np.float32)}, {"audio": np.sin(2 * np.pi * t * 1100).astype(np.float32)}]
    assert known.find(Records(asked)) == [(0, "alike", "4")]
    windows = [{"id": str(i), "past": np.sin(np.arange(i, i + 48) / 7)} for i in range(9)]
    assert Known(Records(windows[::2])).find(Records(windows[1::2])) == []  # windows of one series are no copies
    clouds = [{"id": str(i), "points": np.random.default_rng(i).normal(size=(300, 3))} for i in range(4)]
    assert Known(Records(clouds[:2])).find(Records(clouds[2:])) == []
    said = Known(Records([{"id": "a", "text": "A dog runs over the wide green field."}]))
    asked = [{"text": "a dog runs over the wide  green field"}, {"text": "a cat runs over the wide green field"}]
    assert said.find(Records(asked)) == [(0, "alike", "a")]


def test_leaked_samples_are_listed_and_the_measures_given_without_them(model, tmp_path, capsys):
    place = tmp_path / "photos"
    as_folder(place)
    leaked = next((place / "test" / NAMES[1]).glob("*.png"))  # a training picture under another name and larger
    source = next((place / "train" / NAMES[2]).glob("*.png"))
    Image.open(source).resize((48, 48), Image.Resampling.BICUBIC).save(leaked)
    out = tmp_path / "out"
    words = ["eval", str(model), str(place), "--input", "image", "--out", str(out), "--leakage"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["leakage"]["count"], found["leakage"]["alike"]) == (1, 1)
    sample = found["leakage"]["samples"][0]
    assert sample["id"].endswith(leaked.name) and sample["training"].endswith(source.name)
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()][1:]
    right = [line["label"] == line["answer"] for line in lines if not line["id"].endswith(leaked.name)]
    assert found["leakage"]["measures"]["accuracy"]["value"] == pytest.approx(np.mean(right))
    assert main([*words, str(place)]) == 0
    said = capsys.readouterr().out
    assert f"leakage: 1 of 5 samples are among 6 training samples, {place} (0 exact, 1 alike)" in said


# --- mistakes ---


def refused(capsys, *words: str) -> str:
    """The one line that a mistake ends in."""
    capsys.readouterr()
    assert main(list(words)) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1, said
    return said


def test_mistakes_end_in_one_line_that_says_what_to_mend(model, tmp_path, capsys):
    place = as_folder(tmp_path / "photos")[0]
    (tmp_path / "empty").mkdir()
    base = ["eval", str(model), place, "--input", "image"]
    people = str(wages(tmp_path / "people.csv"))
    every = ["--set", "test=0", "--set", "val=0", "--split", "train"]
    for words, said in (
        ([*base, "--classes", "one"], "at least two"),
        ([*base, "--classes", "one", "two"], "not one of 0..1"),
        (["eval", str(model), str(tmp_path / "empty"), "--input", "image"], "no files"),
        (["eval", str(model), str(tmp_path / "nowhere"), "--input", "image"], "is no data"),
        (["eval", str(model), place, "--input", "smell=image"], "no modality 'smell'"),
        (["eval", str(model), place, "--input", "audio=image"], "photos"),
        (["eval", str(model), place, "--input", "image=picture"], "no field 'picture'"),
        ([*base, "--task", "clasify"], "classify"),
        ([*base, "--task", "answer"], "no field 'answer'"),
        ([*base, "--partner", "text"], "takes no partners"),
        ([*base, "--split", "tset"], "test"),
        ([*base, "--scale", "classifi"], "classify"),
        ([*base, "--set", "label"], "KEY=VALUE"),
        ([*base, "labell=kind"], "label"),
        ([*base, "label=kind"], "no field 'kind'"),
        ([*base, "--leakage", people], "no field 'image' to compare"),
        (["eval", str(model), people, "--task", "wages", *every, "--input", "table=row", "target=wages"], "'wage'"),
        ([*base, "--template", "a photo"], "no {} for the name"),
    ):  # fmt: skip
        assert said in refused(capsys, *words), words


def test_prompts_of_another_model_are_refused_and_the_model_s_own_are_put_on(tmp_path, capsys):
    import torch

    from generalist.adapt.kept import save_part

    found, _ = clients.save(tmp_path / "one", prompts=2)
    place = as_folder(tmp_path / "photos")[0]
    base = ["eval", str(tmp_path / "one"), place, "--input", "image", "--json"]

    def surprise(*more: str) -> float:
        capsys.readouterr()
        assert main([*base, *more]) == 0
        return json.loads(capsys.readouterr().out)["measures"]["nll"]["value"]

    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if name.startswith("prompts."):
                parameter.add_(torch.randn_like(parameter))
    save_part(found, tmp_path / "other.safetensors")
    plain, worn = surprise(), surprise("--prompts", str(tmp_path / "other.safetensors"))
    assert math.isfinite(worn) and abs(plain - worn) > 1e-6
    with torch.no_grad():
        found.encoder.layers[0].mixer.qkv.weight.add_(0.1)
    save_part(found, tmp_path / "wrong.safetensors")
    assert "another model" in refused(capsys, *base, "--prompts", str(tmp_path / "wrong.safetensors"))
    assert "not a readable prompt file" in refused(capsys, *base, "--prompts", str(tmp_path / "none.safetensors"))
