"""Adapting a trained model with little data: draws, what each method trains, parts that are put on and taken off."""

import json

import clients
import numpy as np
import pytest
import torch

from generalist.adapt.curve import curve, with_controls
from generalist.adapt.fewshot import draw
from generalist.adapt.kept import read_part, save_part, wearing
from generalist.adapt.methods import METHODS, Tuning, tune, with_random_encoder
from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records
from generalist.evaluate.predictions import derived
from generalist.hf.model import GeneralistModel
from generalist.tasks.kinds.classify import Classify


def coloured(count: int, seed: int) -> Records:
    """Pictures of three classes told apart by their brightest channel; records {"id", "image", "label"}."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        label = i % 3
        image = rng.integers(0, 120, (12, 12, 3), dtype=np.uint8)
        image[..., label] += 100
        rows.append({"id": f"{seed}/{i}", "image": image, "label": label})
    return Records(rows, {"classes": ["a red seven", "a blue nine", "some words"]})


@pytest.fixture(scope="module")
def base():
    return clients.model_and_processor(scales=["default", "classify"])


def task() -> Classify:
    return Classify(name="colours", source=None, inputs={"image": "image"})


def test_a_draw_takes_so_many_of_each_class_and_is_fixed_by_its_seed():
    records = coloured(30, 0)

    def label(record):
        return record["label"]

    first, again, other = (draw(records, label, shots=2, seed=s) for s in (0, 0, 1))
    assert sorted(r["label"] for r in (first[i] for i in range(6))) == [0, 0, 1, 1, 2, 2] and len(first) == 6
    ids = [[d[i]["id"] for i in range(6)] for d in (first, again, other)]
    assert ids[0] == ids[1] != ids[2]
    assert len(draw(records, label, fraction=0.01)) == 3  # floor(0.01 * 10) + 1 of each class
    assert len(draw(records, label, fraction=0.25)) == 9
    assert len(draw(records, label, fraction=1.0)) == 30


@pytest.mark.parametrize(
    "wrong", [{"shots": 0}, {"shots": 11}, {"fraction": 0.0}, {"fraction": 1.5}, {"shots": 1, "fraction": 0.1}]
)
def test_a_draw_that_cannot_be_made_is_refused(wrong):
    with pytest.raises(UserError):
        draw(coloured(30, 0), lambda r: r["label"], **wrong)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_the_model_it_starts_from_untouched_and_scores_all_test_records(base, method):
    model, processor = base
    before = {k: v.clone() for k, v in model.state_dict().items()}
    how = Tuning(method, shots=4, steps=25, warmup=3, batch=12, prompts=2, rank=2)
    tuned = tune(model, processor.built, task(), coloured(60, 0), coloured(30, 1), how)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert tuned.log_p.shape == (30, 3)
    torch.testing.assert_close(tuned.log_p.exp().sum(-1), torch.ones(30), atol=1e-4, rtol=0)
    assert tuned.samples == (0 if method == "zero-shot" else 12)
    if method != "zero-shot":
        assert tuned.metrics["accuracy"] > 0.55  # chance is a third


def test_prompts_train_what_the_specification_counts_and_lora_what_its_rank_says(base):
    model, processor = base
    d, hidden, layers, classes = 24, 40, 2, 3
    sizes = {"steps": 1, "warmup": 1, "shots": 1}
    prompts = tune(model, processor.built, task(), coloured(30, 0), coloured(6, 1), Tuning(prompts=5, **sizes))
    norms = 2 * d * (2 * layers + 1 + 1)  # two a layer, the embedding's, the output head's
    assert prompts.trained["deep prompts"] == layers * 5 * d
    assert prompts.trained["summary bias"] == d
    assert prompts.trained["layer norms"] == norms
    assert prompts.trained["linear head"] == (d + 1) * classes + 1
    lora = tune(model, processor.built, task(), coloured(30, 0), coloured(6, 1), Tuning("lora", rank=2, **sizes))
    assert lora.trained["low-rank updates"] == layers * 2 * ((d + 3 * d) + (d + d) + 2 * (d + hidden))


def test_parts_are_swapped_on_one_running_model_and_refuse_another(base, tmp_path):
    model, processor = base
    how = Tuning(shots=4, steps=8, warmup=2, prompts=2)
    one = tune(model, processor.built, task(), coloured(60, 0), coloured(9, 1), how)
    other = tune(model, processor.built, task(), coloured(60, 5), coloured(9, 1), Tuning(**{**vars(how), "seed": 1}))
    for name, tuned in (("one", one), ("other", other)):
        save_part(tuned.model, tmp_path / name)
        assert (tmp_path / name).stat().st_size < 20_000
    running = one.model.eval()
    parts = {name: read_part(tmp_path / name, running) for name in ("one", "other")}
    inputs = processor(image=[coloured(3, 7)[i]["image"] for i in range(3)])
    own = running.encode(inputs)
    with wearing(running, parts["other"]):
        torch.testing.assert_close(running.encode(inputs), other.model.eval().encode(inputs))
    torch.testing.assert_close(running.encode(inputs), own)
    assert (own - other.model.encode(inputs)).abs().max() > 1e-3
    with pytest.raises(ValueError, match="inside"), wearing(running, parts["other"]):
        raise ValueError("inside")
    torch.testing.assert_close(running.encode(inputs), own)

    changed = tune(model, processor.built, task(), coloured(60, 0), coloured(9, 1), how).model
    with torch.no_grad():
        changed.encoder.layers[0].mixer.qkv.weight.add_(0.1)
    with pytest.raises(UserError, match="another model"):
        read_part(tmp_path / "one", changed)
    (tmp_path / "cut").write_bytes((tmp_path / "one").read_bytes()[:100])
    with pytest.raises(UserError, match="not a readable"):
        read_part(tmp_path / "cut", running)


def test_a_curve_gives_mean_and_spread_over_its_seeds(base):
    model, processor = base
    how = [Tuning("probe", shots=n, seed=3) for n in (1, 8)]
    lines = curve(model, processor.built, task(), coloured(60, 0), coloured(30, 1), how, draws=3)
    assert [line["seeds"] for line in lines] == [[3, 4, 5]] * 2
    assert lines[1]["accuracy"] == pytest.approx(np.mean(lines[1]["draws"]))
    assert lines[1]["std"] == pytest.approx(np.std(lines[1]["draws"], ddof=1))
    assert lines[1]["accuracy"] >= lines[0]["accuracy"] > 1 / 3


def test_the_control_adapts_a_random_encoder_under_the_same_tokenizers(base):
    model, _ = base
    torch.manual_seed(5)
    control = with_random_encoder(model)
    assert not control.encoder.state_dict().keys() ^ model.encoder.state_dict().keys()
    for name, weight in model.state_dict().items():
        same = torch.equal(weight, control.state_dict()[name])
        assert same or name.startswith("encoder."), name
    matrices = [n for n, p in model.encoder.named_parameters() if p.ndim == 2]
    assert matrices and not any(
        torch.equal(model.encoder.state_dict()[n], control.encoder.state_dict()[n]) for n in matrices
    )


def test_every_frozen_method_is_followed_by_its_control_and_no_other_is(base):
    model, processor = base
    how = with_controls([Tuning(method, shots=2, steps=2) for method in ("zero-shot", "probe", "full")])
    found = []
    after = lambda how, i, tuned: found.append((how.title, tuned.model.encoder.state_dict()))  # noqa: E731
    lines = curve(model, processor.built, task(), coloured(30, 0), coloured(12, 1), how, 2, after)
    assert [line["method"] for line in lines] == ["zero-shot", "probe", "probe, random encoder", "full"]
    assert lines[1]["trained"] == lines[2]["trained"] and lines[1]["seeds"] == lines[2]["seeds"]
    own = model.encoder.state_dict()
    for title, weights in found:
        as_given = all(torch.equal(weights[name], own[name]) for name in own)
        assert as_given == (title in ("zero-shot", "probe")), title


def photos(place, **counts: int) -> None:
    """Coloured pictures as a folder of splits and classes."""
    from PIL import Image

    for seed, (split, count) in enumerate(counts.items()):
        records = coloured(count, seed)
        for i in range(count):
            home = place / split / records.info["classes"][records[i]["label"]]
            home.mkdir(parents=True, exist_ok=True)
            Image.fromarray(records[i]["image"]).save(home / f"{i}.png")


def test_the_script_tunes_prompts_with_a_hundredth_of_the_data_in_several_draws(tmp_path, capsys):
    from generalist.scripts.prompt_tune import main

    clients.save(tmp_path / "base", scales=["default", "classify"])
    photos(tmp_path / "photos", train=12, test=6)
    words = [str(tmp_path / "base"), str(tmp_path / "photos"), "--fraction", "0.01", "--draws", "3", "--steps", "2"]
    assert main([*words, "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert (line["method"], line["samples"], line["seeds"]) == ("prompts", 3, [0, 1, 2])  # floor(.04) + 1 of each class
    assert line["accuracy"] == pytest.approx(np.mean(line["draws"]))
    assert main([*words, "--shots", "13"]) == 2
    assert "13 shots asked for" in capsys.readouterr().err


def test_the_command_tunes_on_a_folder_of_pictures_and_saves_what_predicts(tmp_path, capsys):
    from generalist.cli import main

    _, processor = clients.save(tmp_path / "base", scales=["default", "classify"])
    photos(tmp_path / "photos", train=12, test=6)
    out = tmp_path / "tuned"
    words = [
        "tune",
        str(tmp_path / "base"),
        str(tmp_path / "photos"),
        "--method",
        "zero-shot",
        "prompts",
        "--shots",
        "2",
    ]
    assert (
        main([*words, "--steps", "5", "--prompts", "2", "--draws", "2", "--control", "--out", str(out), "--json"]) == 0
    )
    lines = json.loads(capsys.readouterr().out)
    assert [line["method"] for line in lines] == ["zero-shot", "prompts", "prompts, random encoder"]
    saved = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    names = saved[0]["names"]
    right = [int(np.argmax(line["log_p"])) == line["label"] for line in saved[1:]]
    assert np.mean(right) == pytest.approx(lines[1]["draws"][-1])
    # every number of the table follows from the draws' own files
    for line in lines:
        name = line["method"].replace(", ", "-").replace(" ", "-")
        again = [derived(out / "answers" / f"{name}-2-shots-seed{seed}.jsonl") for seed in line["seeds"]]
        assert [one["accuracy"] for one in again] == pytest.approx(line["draws"])
        for measure in ("macro-F1", "ECE", "nll"):
            assert line["measures"][measure]["mean"] == pytest.approx(np.mean([one[measure] for one in again]))
    base = GeneralistModel.from_pretrained(tmp_path / "base").eval()
    inputs = processor(image=[coloured(3, 7)[i]["image"] for i in range(3)])
    with wearing(base, read_part(out / "prompts.safetensors", base)):
        tuned = GeneralistModel.from_pretrained(out / "model").eval()
        torch.testing.assert_close(base.encode(inputs), tuned.encode(inputs))
    picture = next((tmp_path / "photos" / "test").rglob("*.png"))
    assert main(["predict", str(out / "model"), "--image", str(picture), "--task", "tuned"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
    assert main(["tune", str(tmp_path / "base"), str(tmp_path / "photos"), "--method", "loar"]) == 2
    assert "lora" in capsys.readouterr().err


def test_lora_weights_are_saved_apart_in_kilobytes_and_peft_puts_them_on_the_model_they_came_from(tmp_path):
    import peft

    from generalist.adapt.kept import Keeper

    model, processor = clients.save(tmp_path / "base", scales=["default", "classify"])
    how, asked, test = Tuning("lora", shots=4, steps=8, warmup=2, rank=2), task(), coloured(9, 1)
    tuned = tune(model, processor.built, asked, coloured(60, 0), test, how)
    keeper = Keeper(tmp_path / "out", asked, [test[i]["id"] for i in range(9)])
    keeper(how, 0, tuned)
    assert sum(f.stat().st_size for f in (tmp_path / "out" / "lora").iterdir()) < 20_000
    base = GeneralistModel.from_pretrained(tmp_path / "base").eval()
    worn = peft.PeftModel.from_pretrained(base, tmp_path / "out" / "lora").eval()
    pictures = processor(image=[test[i]["image"] for i in range(3)], return_tensors="pt")
    expected = tuned.model.eval()(**pictures).pooler_output
    torch.testing.assert_close(worn(**pictures).pooler_output, expected, atol=1e-5, rtol=0)
    with worn.disable_adapter():
        plain = worn(**pictures).pooler_output
    torch.testing.assert_close(plain, model(**pictures).pooler_output)
    assert (plain - expected).abs().max() > 1e-3


def test_a_probe_leaves_its_answers_and_no_model_that_would_answer_otherwise(tmp_path):
    from generalist.adapt.kept import Keeper, save_tuned

    model, processor = clients.model_and_processor(scales=["default", "classify"])
    asked, test, how = task(), coloured(9, 1), Tuning("probe", shots=4)
    keeper = Keeper(tmp_path, asked, [test[i]["id"] for i in range(9)])
    tuned = tune(model, processor.built, asked, coloured(60, 0), test, how)
    keeper(how, 0, tuned)
    save_tuned(tmp_path, [], keeper, processor)
    assert derived(tmp_path / "answers" / "probe-4-shots-seed0.jsonl")["accuracy"] == tuned.metrics["accuracy"]
    assert not (tmp_path / "model").exists()


def test_tune_counts_what_cannot_be_read_and_all_three_commands_say_what_is_odd(tmp_path, capsys):
    from generalist.cli import main

    clients.save(tmp_path / "base", scales=["default", "classify"])
    photos(tmp_path / "photos", train=12, test=6)
    home = next((tmp_path / "photos" / "test").iterdir())
    (home / "broken.png").write_bytes(b"")
    (home / "list.xyz").write_text("no picture")
    words = [str(tmp_path / "base"), str(tmp_path / "photos")]
    out = tmp_path / "tuned"
    assert main(["tune", *words, "--method", "zero-shot", "probe", "--shots", "2", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "1 of 7 test samples cannot be read" in said.out and "broken.png" in said.out
    assert "test: " in said.err and "1 .xyz" in said.err
    (line,) = (out / "bad_samples.test.jsonl").read_text().splitlines()
    assert json.loads(line)["record"].endswith("broken.png")
    assert [one["n_test"] for one in json.loads((out / "tuning.json").read_text())] == [6, 6]
    for command in ("eval", "zero-shot"):
        assert main([command, *words, "--out", str(tmp_path / command)]) == 0
        assert "test: " in (err := capsys.readouterr().err) and "1 .xyz" in err
        assert "1 .xyz" in json.loads((tmp_path / command / "result.json").read_text())["notes"][0]
