"""Captioning, question answering and mixed labels: what goes in, where it is asked, what is drawn; and the recipes."""

import json
from pathlib import Path

import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.data.sources.annotations.captions import CocoCaptions
from generalist.data.stream.source import Records
from generalist.data.stream.stream import Steps
from generalist.model.objective import Objective
from generalist.recipe.load import load_recipe
from generalist.recipe.recipe import Recipe
from generalist.recipe.specs import ModelSpec, OptimizerSpec
from generalist.recipes.uni_perceiver import PAIRS, modalities
from generalist.tasks.base.mixup import Mixed, mix
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.names import Vocabulary
from generalist.tasks.kinds.answer import Answer, swap_sides
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.describe import Describe, finished
from generalist.tasks.kinds.retrieve import Retrieve
from generalist.tokenizers_mod.text.bpe import train_bpe
from generalist.tokenizers_mod.text.text import Text
from generalist.train.prepare import prepare

WORDS = ["a red bus on the left", "what is it? a dog", "two dogs run right", "yes no red blue 7"]


class Held:
    """A source of records in memory."""

    def __init__(self, rows: list) -> None:
        self.rows = rows

    def open(self, split: str) -> Records:
        return Records(self.rows, {"classes": ["cat", "dog", "bus"]})


def text() -> Text:
    return Text(tokenizer=train_bpe(WORDS, 300).to_str(), max_length=40, positions=40)


def bound(task: Task, rows: list) -> Task:
    made = modalities(32, text(), strong=False)
    for name, modality in made.items():
        modality.name = name
    records = Records(rows, {"classes": ["cat", "dog", "bus"]})
    task.bind(made, None, records.info)
    task.adopt(task.candidate_set(records))
    return task


def picture() -> torch.Tensor:
    return torch.rand(3, 40, 50)


def test_every_word_of_a_caption_is_asked_at_a_token_that_cannot_see_it():
    task = bound(Describe(name="c", source=Held([])), [])
    example = task.example({"id": "1", "image": picture(), "captions": ["a red bus", "two dogs"]})
    summary, image, words = example.inputs
    ids = task.modalities["text"].ids("a red bus.")
    assert torch.equal(words.labels, ids) and words.length == 2 * len(ids)
    assert words.hidden[words.asked].all() and words.causal[1::2].all()
    assert image.length == 4 and summary.length == 1
    assert isinstance(task.candidates, Vocabulary)
    two = {"image": picture(), "captions": ["a red bus on the left", "yes"]}
    drawn = {task.example(two, torch.Generator().manual_seed(s)).inputs[2].length for s in range(20)}
    assert len(drawn) == 2  # training draws one of the captions
    asked = task.example({"id": "1", "image": picture()}).inputs[2]
    assert asked.length == 1 and asked.labels is None
    assert finished("a dog") == "a dog." and finished("a dog!") == "a dog!"


def test_an_answer_is_drawn_in_proportion_to_its_soft_score():
    rows = [{"id": "1", "image": picture(), "question": "what is it?", "answer": {"dog": 0.9, "cat": 0.3, "bus": 0.0}}]
    task = bound(Answer(name="q", source=Held(rows)), rows)
    names = task.candidates.names
    counts = dict.fromkeys(names, 0)
    for seed in range(400):
        counts[names[int(task.example(rows[0], torch.Generator().manual_seed(seed)).inputs[-1].labels)]] += 1
    assert counts["bus"] == 0 and 0.68 < counts["dog"] / 400 < 0.82  # 0.9 / 1.2 = 0.75
    assert names[int(task.example(rows[0]).inputs[-1].labels)] == "dog"
    span = task.example(rows[0]).inputs[-1]
    assert span.data["ids"][span.asked].item() == task.modalities["text"].spe
    assert span.data["ids"][-1].item() == task.modalities["text"].eot


def test_a_mirrored_picture_swaps_left_and_right_in_question_and_answer():
    assert swap_sides("Left or right? the left, LEFTOVER") == "Right or left? the right, LEFTOVER"
    rows = [{"id": "1", "image": picture(), "question": "left of what?", "answer": "right"}]
    task = bound(Answer(name="q", source=Held(rows), answers=["left", "right", "dog"], mirror=1.0), rows)
    task.modalities["image"].augment = "none"
    plain, mirrored = task.example(rows[0]), task.example(rows[0], torch.Generator().manual_seed(1))
    assert [int(e.inputs[-1].labels) for e in (plain, mirrored)] == [1, 0]
    cells = [e.inputs[1].data["patch"].view(2, 2, 3, 16, 16) for e in (plain, mirrored)]
    torch.testing.assert_close(cells[0], cells[1].flip(1).flip(-1))


def test_a_question_whose_answer_is_unknown_is_not_asked_in_training_and_counts_as_wrong():
    rows = [{"id": "1", "image": picture(), "question": "what?", "answer": "zebra"}]
    task = bound(Answer(name="q", source=Held(rows), answers=["dog", "cat"]), rows)
    batch = task.collate([task.example(rows[0])])
    assert batch.count == 0
    score = task.score(torch.tensor([[0.9, 0.1], [0.8, 0.2]]).log(), torch.tensor([-1, 0]))
    assert score["accuracy"].value == 0.5
    with pytest.raises(UserError, match="soft scores"):
        task.scores({"answer": {"dog": -1.0}})


def mixed(share: float, cut: bool = False, corner: tuple[float, float] = (0.0, 0.0)):
    task = bound(Classify(name="k", source=Held([]), inputs={"image": "image"}), [])
    task.modalities["image"].size = 48
    examples = [task.example({"id": str(i), "image": torch.full((3, 48, 48), float(i)), "label": i}) for i in (0, 1, 2)]
    first = Mixed(examples[0].inputs, share=share, cut=cut, corner=corner)
    return mix([first, *examples[1:]], 3), examples


def test_mixup_mixes_pixels_and_labels_by_the_same_share():
    made, examples = mixed(0.3)
    expected = 0.3 * examples[0].inputs[1].data["patch"] + 0.7 * examples[2].inputs[1].data["patch"]
    torch.testing.assert_close(made[0].inputs[1].data["patch"], expected)
    torch.testing.assert_close(made[0].inputs[0].labels, torch.tensor([[0.3, 0.0, 0.7]]))
    torch.testing.assert_close(made[1].inputs[0].labels, torch.tensor([[0.0, 1.0, 0.0]]))


def test_cutmix_puts_a_box_of_the_other_picture_and_counts_its_true_share():
    made, examples = mixed(1 - 4 / 9, cut=True, corner=(0.0, 0.9))  # 2 x 2 of 3 x 3 patches, at the top right
    other = (made[0].inputs[1].data["patch"] == examples[2].inputs[1].data["patch"]).all(1).view(3, 3)
    assert other.tolist() == [[False, True, True], [False, True, True], [False, False, False]]
    torch.testing.assert_close(made[0].inputs[0].labels, torch.tensor([[5 / 9, 0.0, 4 / 9]]))


def test_a_mixed_batch_counts_one_answer_a_sample_and_its_loss_is_the_soft_cross_entropy():
    rows = [{"id": str(i), "image": picture(), "label": i % 3} for i in range(4)]
    task = bound(Classify(name="k", source=Held(rows), inputs={"image": "image"}, mixup=0.8, cutmix=1.0), rows)
    batch = task.collate([task.example(r, torch.Generator().manual_seed(i)) for i, r in enumerate(rows)])
    assert batch.count == 4 and batch.inputs.labels.shape == (4, 3)
    torch.testing.assert_close(batch.inputs.labels.sum(1), torch.ones(4))
    assert ((batch.inputs.labels > 0).sum(1) > 1).any()
    plain = task.collate([task.example(r) for r in rows])
    assert plain.count == 4 and plain.inputs.labels.dtype == torch.long


def test_captions_are_read_as_pictures_or_as_pairs_and_broken_files_end_in_one_line(tmp_path):
    note = {"images": [{"id": 3, "file_name": "3.jpg"}, {"id": 5, "file_name": "5.jpg"}]}
    note["annotations"] = [{"image_id": 3, "caption": c} for c in (" one ", "two", "")]
    (tmp_path / "captions_train.json").write_text(json.dumps(note))
    pictures = CocoCaptions(str(tmp_path)).open("train")
    assert [r["captions"] for r in pictures.rows] == [["one", "two"]]  # a picture without a caption is left out
    pairs = CocoCaptions(str(tmp_path), each="caption").open("train")
    assert [(r["id"], r["caption"]) for r in pairs.rows] == [("3-0", "one"), ("3-1", "two")]
    note["annotations"].append({"image_id": 9, "caption": "lost"})
    (tmp_path / "captions_train.json").write_text(json.dumps(note))
    with pytest.raises(UserError, match="names the picture 9"):
        CocoCaptions(str(tmp_path)).open("train")
    (tmp_path / "captions_train.json").write_text("[1")
    with pytest.raises(UserError, match="not JSON"):
        CocoCaptions(str(tmp_path)).open("train")
    with pytest.raises(UserError, match="cannot read captions"):
        CocoCaptions(str(tmp_path)).open("val")


@pytest.mark.parametrize(
    "name, tasks, steps",
    [("tiny", 7, 150_000), ("base", 16, 200_000), ("large", 16, 200_000), ("moe_base", 16, 230_000)],
)
def test_the_recipes_hold_the_published_settings(name, tasks, steps):
    recipe = load_recipe(f"uni_perceiver_{name}")
    recipe.check()
    assert (len(recipe.tasks), recipe.steps) == (tasks, steps)
    assert sum(t.share for t in recipe.tasks) == pytest.approx(10, abs=0.02)  # the published weights sum to 10
    if name == "base":
        assert {t.share for t in recipe.tasks if t.name.startswith("coco")} == {PAIRS["coco"]}
        assert recipe.optimizer.clip == 0.1 and recipe.optimizer.betas == (0.9, 0.95)


def shrunk(folder: Path, experts: bool = False) -> Recipe:
    """Base pre-training with small sizes: captioning and retrieval on open COCO pictures."""
    coco = str(folder / "data" / "coco_open")
    words = [caption for row in CocoCaptions(coco).open("train").rows for caption in row["captions"]]
    small = Text(
        tokenizer=train_bpe(words, 400).to_str(), max_length=24, positions=24, word_std=0.02, position_std=0.02
    )
    kept = {k: v for k, v in modalities(32, small, strong=False).items() if k in ("summary", "text", "image")}
    recipe = Recipe(
        name="shrunk",
        about="captioning and retrieval",
        steps=30,
        modalities=kept,
        tasks=[
            Describe(name="caption", source=CocoCaptions(coco), batch=4, max_length=12),
            Retrieve(
                name="pairs",
                source=CocoCaptions(coco, each="caption"),
                inputs={"image": "image"},
                partners={"text": "caption"},
                batch=6,
                smoothing=0.1,
            ),
        ],
        model=ModelSpec(32, 2, 2, 64, layer_scale=0.5, initial_scale=1 / 0.07),
        optimizer=OptimizerSpec(kind="adamw", lr=3e-3, warmup=3),
    )
    if experts:
        recipe.model.moe.placement = "odd"
    return recipe


@pytest.mark.parametrize("experts", [False, True])
def test_the_shrunk_recipe_learns_on_real_pictures_and_captions(shared, experts):
    from generalist.data.stream.schedule import Schedule
    from generalist.train.engines.local import LocalEngine
    from generalist.train.loop import train
    from generalist.train.optimizer import parameter_groups

    recipe = shrunk(shared, experts)
    prepared = prepare(recipe)
    objective = Objective(prepared.model(recipe), prepared.sets, prepared.modalities)
    schedule = Schedule([t.name for t in recipe.tasks], [t.share for t in recipe.tasks], recipe.seed)
    steps = Steps(prepared.feeds(), schedule, recipe.seed)
    optimizer = torch.optim.AdamW(parameter_groups(objective.model, 0.05), lr=3e-3)
    engine = LocalEngine(objective, optimizer, torch.device("cpu"))
    losses: dict[str, list[float]] = {}
    after = lambda r: losses.setdefault(r.task, []).append(r.loss)  # noqa: E731
    batches = (steps[i] for i in range(recipe.steps))
    train(engine, batches, prepared.tasks, schedule, 0, recipe.steps, 3e-3, 3, after=after)
    caption = losses["caption"]
    assert sum(caption[-4:]) / 4 < sum(caption[:4]) / 4 - 0.3
    assert all(loss == loss for values in losses.values() for loss in values)


def test_an_answer_set_that_no_record_uses_is_refused():
    rows = [{"id": "a", "image": None, "question": "is it?", "answer": True}] * 30
    task = Answer(name="q", source=Held(rows), answers=["true", "false"])
    assert task.candidate_set(Records(rows[:3])).names == ["true", "false"]
    with pytest.raises(UserError, match=r"answered by any of \['true', 'false'\]; they say 'True'"):
        task.candidate_set(Records(rows))
