"""transformers' heads on this model: classes and words are candidates, and stock fine-tuning trains them."""

import warnings

import clients
import numpy as np
import pytest
import torch
from PIL import Image
from small import Listed
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
    pipeline,
)

from generalist.data.base.errors import UserError
from generalist.hf.predict import load_model
from generalist.model.ask import likelihoods
from generalist.recipe.recipe import Recipe
from generalist.recipe.specs import ModelSpec
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.fill import Fill
from generalist.tasks.kinds.multilabel import MultiLabel
from generalist.tokenizers_mod.audio.audio import Audio
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image as Pictures
from generalist.train.prepare import prepare

NAMES = ["a red seven", "a blue nine", "some words"]
ROWS = [
    {
        "id": str(i),
        "image": clients.picture(12, 8 + 4 * (i % 2), i),
        "sound": {"array": clients.sound(2000 + 300 * i, i), "sampling_rate": 8000},
        "said": clients.TEXTS[i],
        "marks": NAMES[: i % 3],
        "label": i % 3,
    }
    for i in range(5)
]
HEADS = {
    "image": (AutoModelForImageClassification, "image-classification"),
    "audio": (AutoModelForAudioClassification, "audio-classification"),
    "text": (AutoModelForSequenceClassification, "text-classification"),
}
FIELDS = {"image": "image", "audio": "sound", "text": "said"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A saved model of four tasks, untrained: image, audio and text among names, and hidden words."""
    source = Listed({"train": ROWS}, {"classes": NAMES})
    recipe = Recipe(
        name="heads",
        about="a task of each head",
        tasks=[
            Classify(name="seen", source=source, inputs={"image": "image"}),
            Classify(name="seen_again", source=source, inputs={"image": "image"}, scale="other", classes=NAMES[::-1]),
            Classify(name="heard", source=source, inputs={"audio": "sound"}),
            Classify(name="read", source=source, inputs={"text": "said"}),
            Fill(name="filled", source=source, inputs={"text": "said"}, scale="fill"),
        ],
        modalities={
            "summary": Summary(),
            "text": Text(tokenizer="", learn=290, max_length=24, positions=24),
            "image": Pictures(size=12, patch=4, channels=3),
            "audio": Audio(rate=8000, mels=20, patch=[20, 4], stride=[20, 4]),
        },
        model=ModelSpec(width=24, layers=2, heads=3, hidden=40, prompts=2, separate_prompts=True),
        steps=1,
    )
    prepared = prepare(recipe)
    torch.manual_seed(0)
    model = prepared.model(recipe).eval()
    with torch.no_grad():  # scales that differ are told apart
        for i, scale in enumerate(model.log_scales.values()):
            scale.add_(0.3 * i)
    folder = tmp_path_factory.mktemp("heads")
    model.save_pretrained(folder)
    prepared.processor().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("modality", HEADS)
def test_a_pipeline_gives_the_probabilities_of_the_task_by_its_names(home, modality):
    model, processor = load_model(home)
    task = next(task for task in processor.tasks.values() if set(task.inputs) == {modality} and task.kind == "classify")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classify = pipeline(HEADS[modality][1], model=str(home), top_k=3)
    assert classify.model.config.head_task == task.name
    for row, log_p in zip(ROWS, (read[0][0] for read in likelihoods(model, task, ROWS)), strict=True):
        given = row[FIELDS[modality]]
        given = Image.fromarray(given) if modality == "image" else given["array"] if modality == "audio" else given
        found = classify(given)
        told = {one["label"]: one["score"] for one in (found[0] if isinstance(found[0], list) else found)}
        expected = dict(zip(task.candidates.names, log_p.exp().tolist(), strict=True))
        assert told == {name: pytest.approx(p, abs=1e-5) for name, p in expected.items()}


def test_a_batch_of_unequal_lengths_gets_what_each_gets_alone(home):
    model = AutoModelForSequenceClassification.from_pretrained(home).eval()
    tokenizer = AutoTokenizer.from_pretrained(home)
    together = model(**tokenizer(clients.TEXTS, padding=True, return_tensors="pt")).logits
    alone = [model(**tokenizer(text, return_tensors="pt")).logits for text in clients.TEXTS]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_of_several_tasks_the_first_is_taken_aloud_and_another_can_be_named(home):
    with pytest.warns(UserWarning, match="seen, seen_again; taken as of task 'seen'"):
        first = AutoModelForImageClassification.from_pretrained(home)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other = AutoModelForImageClassification.from_pretrained(home, head_task="seen_again").eval()
    assert list(first.config.id2label.values()) == NAMES == list(other.config.id2label.values())[::-1]
    model, processor = load_model(home)
    log_p = next(likelihoods(model, processor.task("seen_again"), ROWS))[0]
    pixels = processor(image=[ROWS[0]["image"]], return_tensors="pt")
    torch.testing.assert_close(other(**pixels).logits.log_softmax(-1), log_p, atol=1e-5, rtol=0)
    with pytest.raises(UserError, match="did you mean 'seen'"):
        AutoModelForImageClassification.from_pretrained(home, head_task="sean")


def arguments(folder, **more) -> TrainingArguments:
    usual = {"max_steps": 20, "per_device_train_batch_size": 6, "learning_rate": 3e-3, "report_to": [], "use_cpu": True}
    return TrainingArguments(str(folder), save_strategy="no", disable_tqdm=True, logging_steps=10, **usual | more)


def accuracy(prediction) -> dict:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


COLOURS = ["dark", "bright"]


def bright(i: int) -> np.ndarray:
    return clients.picture(12, 12, i) // 4 + 190 * (i % 2)


def test_stock_fine_tuning_of_pictures_learns_saves_and_loads(home, tmp_path):
    """The calls of transformers' own script of image classification, on twelve pictures."""
    words = {"num_labels": 2, "label2id": {n: str(i) for i, n in enumerate(COLOURS)}}
    config = AutoConfig.from_pretrained(home, id2label={str(i): n for i, n in enumerate(COLOURS)}, **words)
    model = AutoModelForImageClassification.from_pretrained(home, config=config, ignore_mismatched_sizes=True)
    processor = AutoImageProcessor.from_pretrained(home)
    data = [{"pixel_values": processor(bright(i))["pixel_values"][0], "labels": i % 2} for i in range(12)]
    trainer = Trainer(
        model, arguments(tmp_path), train_dataset=data, eval_dataset=data, compute_metrics=accuracy,
        processing_class=processor,
    )  # fmt: skip
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_accuracy"] == 1 and after["eval_loss"] < before / 4
    trainer.save_model(str(tmp_path / "saved"))
    loaded = pipeline("image-classification", model=str(tmp_path / "saved"))
    assert type(loaded.model).__name__ == "GeneralistForImageClassification"
    for i in range(4):
        best = loaded(Image.fromarray(bright(i)))[0]
        assert best["label"] == COLOURS[i % 2] and best["score"] > 0.6
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "saved").eval()
    pixels = torch.from_numpy(np.stack([one["pixel_values"] for one in data]))
    torch.testing.assert_close(again(pixel_values=pixels).logits, model.eval()(pixel_values=pixels).logits)


def test_stock_fine_tuning_of_texts_sets_its_names_after_loading(home, tmp_path):
    """As transformers' own script of GLUE does: two labels first, their names on the loaded configuration."""
    model = AutoModelForSequenceClassification.from_pretrained(home, num_labels=2)
    assert model.config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    model.config.id2label, model.config.label2id = dict(enumerate(COLOURS)), {n: i for i, n in enumerate(COLOURS)}
    tokenizer = AutoTokenizer.from_pretrained(home)
    texts = [f"it is {word} {i}" for i in range(6) for word in ("night", "day")]
    data = [
        {**tokenizer(text, padding="max_length", max_length=16, truncation=True), "label": i % 2}
        for i, text in enumerate(texts)
    ]
    trainer = Trainer(model, arguments(tmp_path), train_dataset=data, eval_dataset=data, compute_metrics=accuracy)
    trainer.train()
    assert trainer.evaluate()["eval_accuracy"] == 1
    trainer.save_model(str(tmp_path / "saved"))
    tokenizer.save_pretrained(tmp_path / "saved")
    classify = pipeline("text-classification", model=str(tmp_path / "saved"))
    assert [one["label"] for one in classify(["it is night 3", "it is day 3"])] == COLOURS


def test_stock_fine_tuning_of_sounds(home, tmp_path):
    """As transformers' own script of audio classification does; the collator is the Trainer's own choice."""
    names = dict(enumerate(("low", "high")))
    model = AutoModelForAudioClassification.from_pretrained(home, id2label=names)
    extractor = AutoFeatureExtractor.from_pretrained(home, return_attention_mask=True)
    tensor = extractor.model_input_names[0]

    def row(i: int) -> dict:
        wave = np.sin(np.arange(2400 + 200 * (i % 3)) * (0.1 if i % 2 == 0 else 1.5)).astype(np.float32)
        return {tensor: extractor([wave], sampling_rate=extractor.sampling_rate)[tensor][0], "labels": i % 2}

    data = [row(i) for i in range(12)]
    assert len({one[tensor].shape for one in data}) > 1
    trainer = Trainer(
        model, arguments(tmp_path), train_dataset=data, eval_dataset=data, compute_metrics=accuracy,
        processing_class=extractor,
    )  # fmt: skip
    trainer.train()
    assert trainer.evaluate()["eval_accuracy"] == 1


def test_several_names_may_be_right(home):
    """The numbers of the task of several labels, which denies every name."""
    source = Listed({"train": ROWS}, {"classes": NAMES})
    model = AutoModelForImageClassification.from_pretrained(
        home, id2label=dict(enumerate(NAMES)), problem_type="multi_label_classification"
    ).eval()
    plain, processor = load_model(home)
    fields = {"inputs": {"image": "image"}, "label": "marks", "classes": NAMES}
    task = MultiLabel(name="marked", source=source, scale=model.head_scale("image", ("text",)), **fields)
    task.bind(processor.built, task.candidate_set(source.open("train")), {})
    log_p = torch.cat([read[0] for read in likelihoods(plain, task, ROWS)])
    pixels = processor(image=[row["image"] for row in ROWS], return_tensors="pt")
    labels = torch.tensor([[float(name in row["marks"]) for name in NAMES] for row in ROWS])
    out = model(**pixels, labels=labels)
    torch.testing.assert_close(out.logits.sigmoid(), task.candidates.yes(log_p), atol=1e-5, rtol=0)
    expected = torch.nn.functional.binary_cross_entropy(task.candidates.yes(log_p), labels)
    torch.testing.assert_close(out.loss, expected, atol=1e-5, rtol=0)


def test_what_a_head_cannot_do_is_one_line(home):
    model = AutoModelForSequenceClassification.from_pretrained(home).eval()
    ids = torch.arange(3, 9).view(2, 3)
    with pytest.raises(UserError, match="labels go from 0 to 3, classes from 0 to 2"):
        model(input_ids=ids, labels=torch.tensor([0, 3]))
    with pytest.raises(UserError, match="takes one"):
        model(input_ids=ids, pixel_values=torch.zeros(2, 3, 12, 12))
    with pytest.raises(UserError, match="tells no number"):
        AutoModelForSequenceClassification.from_pretrained(home, num_labels=1)(input_ids=ids)
    fresh, _ = clients.model_and_processor()
    bare = AutoModelForSequenceClassification.from_config(fresh.config)
    with pytest.raises(UserError, match="id2label"):
        bare(input_ids=ids)


def test_fill_mask_gives_the_probabilities_of_hidden_words(home):
    model, processor = load_model(home)
    fill = pipeline("fill-mask", model=str(home))
    assert fill.tokenizer.mask_token == "<|spe|>"
    ids = processor.built["text"].ids("a red <|spe|> on a table")
    place = (ids == processor.built["text"].spe).nonzero().flatten()
    span = processor.built["text"]._span(ids).ask(place)
    task = processor.task("filled")
    summary = processor.built["summary"].span(None)
    p = model.rank([[summary, span]], task.candidates.sequences(processor.built), "fill", task="filled")[0]
    best = p.topk(5)
    told = fill("a red <|spe|> on a table")
    assert [one["token"] for one in told] == best.indices.tolist()
    assert [one["score"] for one in told] == pytest.approx(best.values.tolist(), abs=1e-5)


def test_stock_masked_modelling_trains(home, tmp_path):
    model = AutoModelForMaskedLM.from_pretrained(home)
    tokenizer = AutoTokenizer.from_pretrained(home)
    assert len(tokenizer) <= model.get_input_embeddings().weight.shape[0]
    data = [dict(tokenizer(text)) for text in clients.TEXTS * 4]
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3)
    trainer = Trainer(model, arguments(tmp_path, max_steps=10), train_dataset=data, data_collator=collator)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    batch = collator(data[:5])
    model.eval()
    assert model(**batch).loss < AutoModelForMaskedLM.from_pretrained(home).eval()(**batch).loss
    assert losses
