"""Every client gives evaluation's probabilities, whatever the router of a mixture of experts looks at."""

import json
import warnings
from functools import partial

import clients
import pytest
import torch
from small import Listed
from torch import nn

from generalist.adapt.prompted import PromptedModel
from generalist.clients import sklearn
from generalist.data.base.errors import UserError
from generalist.evaluate import answer as evaluate
from generalist.evaluate.any_to_any import encoded, standings
from generalist.evaluate.zero_shot import Asked, evaluate_on
from generalist.hf.predict import load_model, predict
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.model.decode import start, vocabulary_features
from generalist.model.objective import Objective
from generalist.nn.experts.experts import Experts
from generalist.nn.experts.routing import ROUTERS
from generalist.recipe.recipe import Recipe
from generalist.recipe.specs import ModelSpec, MoeSpec
from generalist.run.results import save_model
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.describe import Describe
from generalist.tasks.kinds.retrieve import Retrieve
from generalist.tokenizers_mod.audio.audio import Audio
from generalist.tokenizers_mod.tables.table import Table
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image
from generalist.train.prepare import prepare

NAMES = ["a red seven", "a blue nine", "some words"]
ROWS = [
    {
        "id": str(i),
        "image": clients.picture(12, 8 + 4 * (i % 2), i),
        "sound": {"array": clients.sound(2000 + 300 * i, i), "sampling_rate": 8000},
        "row": clients.ROWS[i],
        "asked": clients.TEXTS[i],
        "said": clients.TEXTS[-1 - i],
        "label": i % 3,
    }
    for i in range(5)
]


def recipe(router: str, more: bool = False) -> Recipe:
    """more: a second task for each question that has one."""
    source = Listed({"train": ROWS}, {"classes": NAMES})
    tasks = [
        Classify(name="seen", source=source, inputs={"image": "image"}),
        Classify(name="heard", source=source, inputs={"audio": "sound"}),
        Classify(name="listed", source=source, inputs={"table": "row"}),
        Classify(name="asked", source=source, inputs={"image": "image", "text": "asked"}),
        Classify(name="read", source=source, inputs={"text": "asked"}, scale="read"),
        Retrieve(name="paired", source=source, inputs={"audio": "sound"}, partners={"image": "image"}),
        Describe(name="written", source=source, inputs={"image": "image"}, caption="said"),
    ]
    if more:
        tasks[:0] = [Classify(name="z seen", source=source, inputs={"image": "image"})]
        tasks += [Describe(name="z written", source=source, inputs={"image": "image"}, caption="said")]
    return Recipe(
        name="sides",
        about="a question of every kind",
        steps=1,
        modalities={
            "summary": Summary(),
            "text": Text(tokenizer="", learn=300, max_length=40, positions=40),
            "image": Image(size=12, patch=4, channels=3),
            "audio": Audio(rate=8000, mels=20, patch=[20, 4], stride=[20, 4]),
            "table": Table(),
        },
        tasks=tasks,
        model=ModelSpec(width=24, layers=2, heads=3, hidden=40, moe=MoeSpec(placement="all", experts=5, router=router)),
    )


def made(folder, router: str, more: bool = False):
    """A model whose gates are far from even, saved; its processor, and evaluation's log p by task."""
    torch.manual_seed(0)
    asked = recipe(router, more)
    prepared = prepare(asked)
    objective = prepared.objective(asked)
    for mixer in objective.modules():
        if isinstance(mixer, Experts):
            nn.init.normal_(mixer.router.gate.weight)
            if hasattr(mixer.router, "embedding"):
                nn.init.normal_(mixer.router.embedding.weight)
    save_model(prepared, objective.model.eval(), folder)
    records = {name: task.source.open("test") for name, task in prepared.tasks.items()}
    answers = {name: evaluate.answer(task, records[name], objective) for name, task in prepared.tasks.items()}
    return *load_model(folder), {name: found.log_p(slice(None)) for name, found in answers.items()}


@pytest.fixture(scope="module", params=ROUTERS)
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return folder, *made(folder, request.param)


@pytest.fixture(autouse=True)
def no_guess():
    """A task that can be told needs no warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*name the task to choose.*")
        yield


def near(found, expected) -> None:
    torch.testing.assert_close(torch.as_tensor(found), expected, rtol=0, atol=1e-5)


INPUTS = {
    "seen": {"image": "image"},
    "heard": {"audio": "sound"},
    "listed": {"table": "row"},
    "read": {"text": "asked"},
}
INPUTS |= {"asked": {"image": "image", "text": "asked"}}


def columns(task: str) -> dict:
    return {m: [row[field] for row in ROWS] for m, field in INPUTS[task].items()}


@pytest.mark.parametrize("task", INPUTS)
@pytest.mark.parametrize("named", [True, False])
def test_rank_and_log_likelihood(saved, task, named):
    _, model, processor, expected = saved
    inputs, scale = processor(**columns(task)), processor.tasks[task].scale
    near(model.log_likelihood(inputs, processor.candidates(NAMES), scale, task if named else None), expected[task])
    near(model.rank(inputs, processor.candidates(NAMES), scale, task if named else None), expected[task].exp())
    worn = PromptedModel(model).rank(inputs, processor.candidates(NAMES), [None] * 5, scale, task if named else None)
    near(worn, expected[task].exp())


@pytest.mark.parametrize("task", INPUTS)
def test_the_sides_encoded_one_by_one(saved, task):
    _, model, processor, expected = saved
    scale = model.log_scale(processor.tasks[task].scale).exp()
    inputs = model.encode(processor(**columns(task)), task=task)
    candidates = model.encode(processor.candidates(NAMES), "candidate", other=INPUTS[task], task=task)
    near((inputs @ candidates.T * scale).log_softmax(-1), expected[task])


@pytest.mark.parametrize(("task", "tensor"), [("seen", "image"), ("heard", "audio"), ("listed", "table")])
def test_padded_tensors(saved, task, tensor):
    _, model, processor, expected = saved
    tensors = processor(**columns(task), text=NAMES, return_tensors="pt")
    with torch.no_grad():
        near(model(**tensors).logits.log_softmax(-1), expected[task])
        near(model(**tensors, task=task).logits.log_softmax(-1), expected[task])


def test_the_pipelines(saved):
    import PIL.Image
    from transformers import pipeline

    folder, _, _, expected = saved
    look = pipeline("zero-shot-image-classification", model=str(folder / "model"))
    listen = pipeline("zero-shot-audio-classification", model=str(folder / "model"))
    for i, row in enumerate(ROWS[:2]):
        words = {"candidate_labels": NAMES, "hypothesis_template": "{}"}
        seen = {r["label"]: r["score"] for r in look(PIL.Image.fromarray(row["image"]), **words)}
        heard = {r["label"]: r["score"] for r in listen(row["sound"]["array"], **words)}
        near([seen[n] for n in NAMES], expected["seen"][i].exp())
        near([heard[n] for n in NAMES], expected["heard"][i].exp())


def test_predict(saved, tmp_path):
    folder, _, _, expected = saved
    (tmp_path / "row.json").write_text(json.dumps(ROWS[3]["row"]))
    answers = dict(predict(folder, {"table": str(tmp_path / "row.json")}, None, "listed")["answers"])
    near([answers[n] for n in NAMES], expected["listed"][3].exp())
    given = dict(predict(folder, {"text": ROWS[2]["asked"]}, NAMES, None)["answers"])
    near([given[n] for n in NAMES], expected["read"][2].exp())


def test_an_evaluation_of_new_data_by_the_kind_of_task(saved):
    _, model, processor, expected = saved
    records = Listed({"train": ROWS}, {"classes": NAMES}).open("test")
    near(
        evaluate_on(model, processor, records, Asked("classify", {"table": "row"}))[0].log_p(slice(None)),
        expected["listed"],
    )


def test_any_to_any_in_both_directions(saved):
    _, model, processor, expected = saved
    records = Listed({"train": ROWS}).open("test")
    scale = model.log_scale("retrieve").exp()
    fields = {"audio": "sound", "image": "image"}
    for source, target in (("audio", "image"), ("image", "audio")):
        pair = [
            encoded(model, processor, records, how, fields[how.modality])[0] for how in standings(model, source, target)
        ]
        logits = pair[0] @ pair[1].T * scale
        near((logits if source == "audio" else logits.T).log_softmax(-1), expected["paired"])


def test_a_first_word(saved):
    """Of the caption's first word evaluation and writing know the same; `generate` writes the likeliest."""
    folder, model, processor, expected = saved
    from generalist.hf.writing import GeneralistForImageTextToText

    text, summary = processor.built["text"], processor.built["summary"]
    inputs = [[summary.span(None), processor.span("image", row["image"])] for row in ROWS]
    ends = [len(text.caption_span(text.read(row["said"] + ".")).labels) for row in ROWS]
    first = expected["written"][torch.tensor([0, *ends[:-1]]).cumsum(0)]
    for task in ("written", None):
        members = vocabulary_features(model, text, summary, {"image"}, task)
        with torch.no_grad():
            near(start(model, inputs, text, "describe", task).ask(0, members), first)
    writer = GeneralistForImageTextToText.from_pretrained(folder / "model").eval()
    tensors = processor(image=[row["image"] for row in ROWS], return_tensors="pt")
    assert writer.generate(**tensors, max_new_tokens=1)[:, 1].tolist() == first.argmax(-1).tolist()


@pytest.mark.parametrize("router", ROUTERS)
def test_the_estimators_of_scikit_learn(router, monkeypatch):
    mixture = {"moe_placement": "all", "moe_experts": 3, "moe_router": router}
    monkeypatch.setattr(sklearn, "GeneralistConfig", partial(GeneralistConfig, **mixture))
    x, y = torch.randn(24, 3).numpy(), [i % 3 for i in range(24)]
    found = sklearn.GeneralistClassifier(steps=2, width=24, random_state=0).fit(x, y)
    for mixer in found.model_.modules():
        if isinstance(mixer, Experts):
            nn.init.normal_(mixer.router.gate.weight)
    records = Listed({"train": [{"x": {f"x{j}": v for j, v in enumerate(r)}, "y": 0} for r in x.tolist()]}).open("test")
    objective = Objective(found.model_, {"fit": found.task_.candidates}, found.modalities_)
    near(found.predict_log_proba(x), evaluate.answer(found.task_, records, objective).log_p(slice(None)).double())


def test_a_task_that_cannot_be_told_is_said_and_can_be_named(tmp_path):
    model, processor, expected = made(tmp_path, "task", more=True)
    inputs, candidates = processor(**columns("seen")), processor.candidates(NAMES)
    with pytest.warns(UserWarning, match="image can be asked as z seen, seen; taken as of task 'z seen'"):
        near(model.rank(inputs, candidates, "classify"), expected["z seen"].exp())
    assert not torch.allclose(expected["seen"], expected["z seen"], atol=1e-2)
    near(model.rank(inputs, candidates, "classify", "seen"), expected["seen"].exp())
    tensors = processor(**columns("seen"), text=NAMES, return_tensors="pt")
    with torch.no_grad():
        near(model(**tensors, task="seen").logits.log_softmax(-1), expected["seen"])
        model.config.zero_shot_task = "seen"
        near(model(**tensors).logits.log_softmax(-1), expected["seen"])
    model.config.zero_shot_task = ""
    with pytest.warns(UserWarning, match="no task of this model was taught to compare audio \\+ table so"):
        model.rank(processor(audio=columns("heard")["audio"], table=columns("listed")["table"]), candidates, "classify")
    with pytest.raises(UserError, match="no task 'sen'; did you mean 'seen'"):
        model.rank(inputs, candidates, "classify", "sen")
    with pytest.raises(UserError, match="side='candidates'; did you mean 'candidate'"):
        model.encode(candidates, "candidates")


def test_an_input_that_lacks_a_modality_is_asked_as_the_task_that_it_belongs_to(tmp_path):
    """Evaluation tells candidates what its task's inputs hold, also where a record has no picture."""
    rows = [{**row, "image": None} for row in ROWS]
    asked = recipe("attribute")
    asked.tasks = [task for task in asked.tasks if task.name in ("asked", "heard")]
    asked.modalities = {n: m for n, m in asked.modalities.items() if n != "table"}
    prepared = prepare(asked)
    objective = prepared.objective(asked)
    for mixer in objective.modules():
        if isinstance(mixer, Experts):
            nn.init.normal_(mixer.router.gate.weight)
    model, processor = objective.model.eval(), prepared.processor()
    answers = evaluate.answer(prepared.tasks["asked"], Listed({"train": rows}).open("test"), objective)
    inputs = processor(text=[row["asked"] for row in rows])
    near(model.log_likelihood(inputs, processor.candidates(NAMES), "classify"), answers.log_p(slice(None)))
