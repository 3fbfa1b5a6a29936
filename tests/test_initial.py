"""A run that starts from an earlier model: what is taken, what is new, what is refused; prompt tuning as such a run."""

import json

import pytest
import torch

from generalist.convert.files import load_folder
from generalist.data.base.errors import UserError
from generalist.recipe.load import load_recipe
from generalist.run.train import train_run
from generalist.train.optimizer import learning_rate
from generalist.train.prepare import prepare
from generalist.train.start.initial import load_initial
from tests.tiny import tiny


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished run of two steps."""
    out = tmp_path_factory.mktemp("first") / "run"
    train_run(tiny(steps=2), out, quiet=True)
    return out


def test_a_run_without_a_learning_rate_ends_with_the_weights_it_started_from(first, tmp_path):
    train_run(tiny(steps=1, seed=7, init=first, optimizer__lr=0), tmp_path / "run", quiet=True)
    before, after = (load_folder(run / "model") for run in (first, tmp_path / "run"))
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    told = json.loads((tmp_path / "run" / "init.json").read_text())
    assert told["loaded"] == len(before) and told["parameters"] == sum(v.numel() for v in before.values())
    assert told["missing"] == told["unexpected"] == told["reshaped"] == told["notes"] == []


def test_a_fresh_run_of_another_seed_would_not(first):
    recipe = tiny(steps=1, seed=7)
    fresh = prepare(recipe).model(recipe).state_dict()
    assert not torch.equal(
        load_folder(first / "model")["encoder.layers.0.mlp.up.weight"], fresh["encoder.layers.0.mlp.up.weight"]
    )


def test_prompt_tuning_is_a_run_that_moves_prompts_bias_norms_and_heads_only(first, tmp_path):
    keys = {"model__prompts": 3, "model__linear_heads": "true", "modalities__text__spe_bias": "true"}
    keys |= {"tasks__wine__scale": "wine", "tasks__digits__scale": "digits"}
    recipe = tiny(steps=3, init=first, model__freeze="all_but_prompts", **keys)
    train_run(recipe, tmp_path / "run", quiet=True)
    before, after = (load_folder(run / "model") for run in (first, tmp_path / "run"))
    new = {name.partition(".")[0] for name in set(after) - set(before)}
    assert new == {"prompts", "linear_heads", "log_scales", "tokenizers"}
    assert after["prompts.vectors"].shape == (1, 3, 16)
    assert after["linear_heads.wine.linear.weight"].shape == (3, 16)
    assert after["linear_heads.digits.linear.weight"].shape == (10, 16)
    moved = {name for name in set(before) & set(after) if not torch.equal(before[name], after[name])}
    assert moved and all("norm" in name for name in moved)
    told = json.loads((tmp_path / "run" / "init.json").read_text())
    assert any("prompts.vectors (1, 3, 16)" in note for note in told["notes"])
    assert any("spe_bias" in note for note in told["notes"])
    assert told["unexpected"] == ["log_scales.classify"]


def test_what_does_not_fit_is_refused_in_one_line(first, tmp_path):
    for keys, words in (
        ({"model__width": 32}, "give the recipe the sizes of its model"),
        ({"model__heads": 4}, "its model has heads=2, the recipe's 4"),
        ({"model__layers": 2}, r"lacks encoder\.layers\.1"),
        ({"model__hidden": 28}, r"encoder\.layers\.0\.mlp"),
        ({"modalities__text__tokenizer": "clip"}, "its text has another tokenizer"),
    ):
        recipe = tiny(steps=1, init=first, **keys)
        with pytest.raises(UserError, match=words):
            load_initial(prepare(recipe).model(recipe), first)
    with pytest.raises(UserError, match="holds no model"):
        prepare(tiny(steps=1, init=tmp_path))


def test_a_modality_that_the_saved_model_does_not_have_starts_afresh_and_is_told(first):
    recipe = tiny(steps=1, init=first)
    recipe.modalities["number"] = type(recipe.modalities["summary"])()
    model = prepare(recipe).model(recipe)
    report = load_initial(model, first)
    assert report.notes == ["new, as initialised: tokenizers.number.token.weight (1, 16)"]
    assert torch.equal(
        model.state_dict()["encoder.layers.0.norm1.weight"],
        load_folder(first / "model")["encoder.layers.0.norm1.weight"],
    )


def test_positions_that_are_computed_are_not_taken_from_another_picture_size(tmp_path):
    from generalist.hf.model import GeneralistModel
    from generalist.hf.pretrained.config import GeneralistConfig
    from generalist.recipes.uni_perceiver import modalities
    from generalist.tokenizers_mod.base.modalities import modality_settings
    from tests.test_uni_perceiver_tasks import text

    def model(size: int) -> GeneralistModel:
        kept = {k: v for k, v in modalities(size, text(), strong=False).items() if k in ("summary", "text", "image")}
        return GeneralistModel(
            GeneralistConfig(hidden_size=24, num_attention_heads=2, modalities=modality_settings(kept))
        )

    small, large = model(32), model(48)
    small.save_pretrained(tmp_path)
    own = large.tokenizers["image"].spatial.clone()
    report = load_initial(large, tmp_path)
    assert torch.equal(large.tokenizers["image"].spatial, own) and own.shape == (9, 24)
    assert [line.partition(":")[0] for line in report.reshaped] == ["tokenizers.image.spatial"]
    assert torch.equal(large.tokenizers["image"].projection.weight, small.tokenizers["image"].projection.weight)


def test_the_cosine_ends_at_the_least_rate_of_the_recipe():
    recipe = load_recipe("uni_perceiver_base")
    assert recipe.optimizer.floor == pytest.approx(1e-3)  # 1e-6 of 1e-3
    rates = [recipe.optimizer.lr * learning_rate(t, 200, 10, recipe.optimizer.floor) for t in range(200)]
    assert rates[9] == pytest.approx(1e-3) and min(rates[10:]) == pytest.approx(1e-6)
    assert tiny().optimizer.floor == 0.01
    with pytest.raises(UserError, match=r"min_lr=0.1 exceeds optimizer\.lr=0\.01"):
        tiny(optimizer__min_lr=0.1).check()
    second = load_recipe("uni_perceiver_base_stage2")
    assert second.optimizer.lr * second.optimizer.floor == pytest.approx(1e-6)


def test_a_run_logs_the_least_rate(tmp_path):
    train_run(tiny(steps=4, optimizer__warmup=0, optimizer__min_lr=8e-3), tmp_path / "run", quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in lines if "lr" in line]
    assert rates[0] == pytest.approx(1e-2) and rates[-1] == pytest.approx(8e-3)


@pytest.mark.parametrize(
    "name, steps, weights",
    [
        ("base", 45_000, (0.05, 0.25, 0.5, 0.5)),
        ("large", 90_000, (0.05, 0.25, 0.5, 0.5)),
        ("moe_base", 50_000, (0.1, 0.5, 1.0, 1.0)),
    ],
)
def test_the_second_stage_holds_the_published_settings(name, steps, weights):
    recipe, processes = load_recipe(f"uni_perceiver_{name}_stage2"), 56 if name == "moe_base" else 64
    recipe.check()
    tasks = {task.name: task for task in recipe.tasks}
    assert (recipe.steps, recipe.optimizer.lr, recipe.optimizer.weight_decay) == (steps, 2e-5, 0.05)
    assert recipe.init == f"runs/uni_perceiver_{name}"
    assert sum(t.share for t in recipe.tasks) == pytest.approx(10, abs=0.02)
    batches = {name: tasks[name].batch // processes for name in tasks}
    assert [batches[n] for n in ("imagenet22k", "kinetics700", "moments", "books_wiki")] == [440, 12, 68, 512]
    assert batches["coco_caption"] == 200 and batches["coco_retrieval"] == 320
    found = [tasks[n].weight for n in ("kinetics700", "books_wiki", "coco_caption", "coco_retrieval")]
    assert tuple(found) == weights
    assert tasks["imagenet22k"].mixup == tasks["imagenet22k"].cutmix == 0
    assert recipe.modalities["image"].size == 224 and recipe.modalities["video"].taken == 8
    assert set(tasks["kinetics700"].inputs) == {"video"} and set(tasks["moments"].inputs) == {"video3"}
    assert all(m in recipe.modalities for task in recipe.tasks for m in task.inputs)
