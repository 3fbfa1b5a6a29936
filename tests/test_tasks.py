"""Every task on small records: what goes in, where the question is asked, what is scored, and which data is refused."""

import math

import numpy as np
import pytest
import torch
from small import COLOURS, Listed, modalities

from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records
from generalist.evaluate.answer import answer
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.model.objective import Objective, same_answer
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.names import Names, Numbers, Vocabulary
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.fill import Fill
from generalist.tasks.kinds.forecast import Forecast
from generalist.tasks.kinds.regress import Regress
from generalist.tasks.kinds.retrieve import Retrieve
from generalist.tasks.measures.metrics import Mean, mean_of, merge
from generalist.tokenizers_mod.base.modalities import modality_settings
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image

LIGHTS = [{"id": f"light/{i}", "row": {"warm": float(i), "size": i * 2.0}, "label": i % 3} for i in range(6)]
LINES = [
    {"id": f"line/{i}", "past": [float(i + t) for t in range(9)], "future": [i + 9.0, i + 10.0, i + 11.0]}
    for i in range(5)
]
PRICES = [{"id": f"price/{i}", "row": {"rooms": float(i)}, "target": 10.0 * i} for i in range(7)]
PAIRS = [
    {"id": "pair/0", "text": "a red light", "other": "rot"},
    {"id": "pair/1", "text": "a green light", "other": "gruen"},
    {"id": "pair/2", "text": "one more red light", "other": "rot"},
]


def ready(task: Task) -> Task:
    """The task as it stands after `prepare`: learnt from its training records and bound."""
    found, records = modalities(), task.source.open("train")
    task.learn(found, records)
    task.bind(found, None, records.info)
    task.candidates = task.candidate_set(records)
    return task


def classify(**kwargs) -> Classify:
    source = Listed({"train": LIGHTS}, {"classes": COLOURS})
    return ready(Classify(name="lights", source=source, inputs={"table": "row"}, **kwargs))


def regress(**kwargs) -> Regress:
    return ready(Regress(name="prices", source=Listed({"train": PRICES}), inputs={"table": "row"}, **kwargs))


def forecast(**kwargs) -> Forecast:
    return ready(Forecast(name="lines", source=Listed({"train": LINES}), horizon=3, bins=8, **kwargs))


def retrieve() -> Retrieve:
    source = Listed({"train": PAIRS})
    return ready(Retrieve(name="pairs", source=source, inputs={"text": "text"}, partners={"text": "other"}, batch=3))


def kinds(example) -> list[tuple[str, int]]:
    return [(span.modality, span.length) for span in example.inputs]


def certain(*right: int, k: int) -> torch.Tensor:
    """log p [n, k] that is nearly sure of one candidate each."""
    return (torch.nn.functional.one_hot(torch.tensor(right), k) * 20.0).log_softmax(-1)


def test_a_task_that_is_given_nothing_to_look_at_is_refused():
    task = classify()
    task.inputs = {}
    with pytest.raises(UserError, match="task lights: inputs is empty; say what goes in"):
        task.example(LIGHTS[0])


# --- classify ---


def test_a_class_is_asked_at_the_summary_among_the_names_as_text():
    task = classify()
    example = task.example(LIGHTS[4])
    assert kinds(example) == [("summary", 1), ("table", 2)]
    assert example.inputs[0].asked.tolist() == [0]
    assert example.inputs[0].labels.tolist() == [1]
    assert example.record == "light/4"
    assert isinstance(task.candidates, Names)
    assert task.candidates.names == COLOURS
    assert task.truth(LIGHTS[4]) == "green"


def test_a_label_may_be_a_name_or_an_index_or_absent():
    task = classify()
    assert task.example(LIGHTS[0] | {"label": "blue"}).inputs[0].labels.tolist() == [2]
    assert task.example(LIGHTS[0] | {"label": 2.0}).inputs[0].labels.tolist() == [2]
    assert task.example(LIGHTS[0] | {"label": None}).inputs[0].labels is None


def test_accuracy_and_nll_are_those_of_the_given_probabilities():
    score = classify().score(certain(0, 1, 2, 2, k=3), torch.tensor([0, 1, 2, 0]))
    assert (score["accuracy"].total, score["accuracy"].count) == (3, 4)
    assert score["nll"].value == pytest.approx(20 / 4, rel=1e-3)


def test_a_field_that_is_none_is_a_missing_modality():
    task = classify()
    assert kinds(task.example(LIGHTS[0] | {"row": None})) == [("summary", 1)]


# --- retrieve ---


def test_both_sides_of_a_pair_are_asked_at_their_summary():
    task = retrieve()
    example = task.example(PAIRS[0])
    assert [s.modality for s in example.inputs] == [s.modality for s in example.partner] == ["summary", "text"]
    assert example.partner[0].asked.tolist() == [0]
    assert task.candidates is None


def test_equal_partners_in_a_batch_are_one_answer_spread_over_both():
    task = retrieve()
    batch = task.collate([task.example(record) for record in PAIRS])
    assert batch.count == 3
    expected = torch.tensor([[0.5, 0, 0.5], [0, 1, 0], [0.5, 0, 0.5]])
    torch.testing.assert_close(same_answer(batch.keys), expected)


def test_any_member_with_the_querys_key_counts_as_found():
    keys = torch.tensor([4, 7, 4])
    log_p = certain(2, 0, 0, k=3)  # query 0 finds its twin, query 1 errs, query 2 finds its twin
    score = retrieve().score(log_p, keys.unsqueeze(1) == keys)
    assert (score["recall@1"].total, score["recall@1"].count) == (2, 3)
    assert score["recall@5"].value == 1.0


def test_evaluation_of_equal_partners_is_perfect_for_a_model_that_tells_the_two_words_apart():
    task = retrieve()
    config = GeneralistConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        modalities=modality_settings(task.modalities), scales=["default", "retrieve"],
    )  # fmt: skip
    model = GeneralistModel(config)

    def told(packed, **_):
        """One axis for each first word of the partner: what an ideal encoder would give for these pairs."""
        rows = [0, 1, 0] if packed.sequences == 3 else [0]
        return torch.eye(8)[rows]

    model.features = told
    found = answer(task, task.source.open("train"), Objective(model, {}, task.modalities))
    assert found.metrics["recall@1"] == 1.0
    assert found.metrics["recall@1 forward"] == found.metrics["recall@1 backward"] == 1.0
    assert found.targets(slice(0, 3)).tolist() == [[True, False, True], [False, True, False], [True, False, True]]


# --- fill ---


def fill(**kwargs) -> Fill:
    texts = ["the red light is over the old door", "the blue light is over the new door"]
    rows = [{"id": f"text/{i}", "text": text} for i, text in enumerate(texts)]
    return ready(Fill(name="words", source=Listed({"train": rows}), **kwargs))


def test_hidden_words_are_asked_among_the_vocabulary():
    task = fill(rate=0.3)
    example = task.example(task.source.open("train")[0])
    text = example.inputs[1]
    assert [s.modality for s in example.inputs] == ["summary", "text"]
    assert example.inputs[0].asked is None
    original = task.modalities["text"].ids("the red light is over the old door")
    assert 0 < len(text.asked) < text.length - 1
    assert torch.equal(text.labels, original[text.asked])
    assert isinstance(task.candidates, Vocabulary)


def test_evaluation_hides_the_same_words_again_and_training_does_not():
    task = fill(rate=0.3)
    record = task.source.open("train")[1]
    assert task.example(record).inputs[1].asked.tolist() == task.example(record).inputs[1].asked.tolist()
    rng = torch.Generator().manual_seed(0)
    drawn = {tuple(task.example(record, rng).inputs[1].asked.tolist()) for _ in range(20)}
    assert len(drawn) > 1


# --- regress ---


def test_a_value_is_a_distribution_over_number_tokens_around_it():
    task = regress(bins=16)
    numbers = task.candidates
    assert isinstance(numbers, Numbers)
    labels = task.example(PRICES[4]).inputs[0].labels
    z = (40.0 - 30.0) / torch.tensor([10.0 * i for i in range(7)]).std()
    torch.testing.assert_close(labels, z.reshape(1))
    target = numbers.target(labels)
    assert target.shape == (1, 16)
    torch.testing.assert_close(target.sum(), torch.tensor(1.0))


def test_a_certain_distribution_decodes_to_its_value_and_scores_zero():
    task = regress(bins=64, sigma=0.001)
    labels = torch.stack([task.example(record).inputs[0].labels[0] for record in PRICES])
    log_p = task.candidates.target(labels).clamp_min(1e-9).log()
    score = task.score(log_p, labels)
    width = 60.0 / 64 + 0.5  # a bin in the target's unit, generously: the range is 60 and a margin
    assert score["rmse"].value < width
    assert score["mae"].value < width
    assert score["rmse"].root
    text, mass = task.answer(log_p[4], [])[0]
    assert float(text.split(" ")[0]) == pytest.approx(40.0, abs=width)
    assert mass == 0.8


def test_a_calibrated_spread_is_covered_by_its_interval_at_the_nominal_rate():
    task = regress(bins=64)
    z = torch.randn(4000, generator=torch.Generator().manual_seed(1)) * 0.5
    edges = torch.tensor(task.candidates.edges)
    mass = torch.special.ndtr(edges / 0.5).diff()
    log_p = (mass / mass.sum()).log().expand(4000, -1)
    assert task.score(log_p, z)["coverage of 80% interval"].value == pytest.approx(0.8, abs=0.03)


# --- forecast ---


def test_future_steps_are_asked_at_slots_in_units_of_the_past():
    task = forecast()
    example = task.example(LINES[2])
    assert kinds(example) == [("summary", 1), ("series", 3), ("slot", 1)]  # 9 steps in patches of 4, 3 in one slot
    labels = example.inputs[2].labels
    past = torch.tensor(LINES[2]["past"], dtype=torch.float64)
    z = (torch.tensor(LINES[2]["future"]) - past.mean()) / (past.var(correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(labels[0, :3], z.float())
    assert labels[0, 3].isnan()  # the slot's fourth step is beyond the horizon
    assert task.candidates.answers(labels) == 3


def test_a_forecast_is_decoded_to_the_series_own_units():
    task = forecast(sigma=0.001)
    example = task.example(LINES[2])
    log_p = task.candidates.target(example.inputs[2].labels.nan_to_num()).clamp_min(1e-9).log()
    origin = task.origin(LINES[2])
    low, median, high = origin.quantiles(task.candidates, log_p, (0.1, 0.5, 0.9))
    edges = torch.tensor(task.candidates.edges).diff().max() * origin.std
    assert len(median) == 3
    assert bool((low <= median).all() and (median <= high).all())
    assert float((median - torch.tensor(LINES[2]["future"])).abs().max()) <= float(edges)


def test_steps_beyond_the_horizon_are_not_scored():
    task = forecast()
    labels = task.example(LINES[0]).inputs[2].labels
    log_p = torch.zeros(*labels.shape, len(task.candidates.edges) - 1).log_softmax(-1)
    assert task.score(log_p, labels)["mae"].count == 3


# --- what is refused ---


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: classify().example(LIGHTS[0] | {"label": 3}), "class index 3 is not one of 0..2"),
        (lambda: classify().example(LIGHTS[0] | {"label": float("nan")}), "class index nan"),
        (lambda: classify().example(LIGHTS[0] | {"label": 0.5}), "class index 0.5"),
        (lambda: classify().example(LIGHTS[0] | {"label": "pink"}), "unknown class 'pink'"),
        (lambda: classify().example({"id": "x", "rows": {}, "label": 1}), "no field 'row'; did you mean 'rows'"),
        (lambda: classify().example({"row": {"warm": 1.0}, "label": 1}), "the row lacks ['size']"),
        (lambda: classify().example({"row": {"warm": math.inf, "size": 1.0}}), "expected a finite number"),
        (lambda: classify(classes=["one"]), "a likelihood needs at least two"),
        (lambda: classify(classes=["one", "one"]), "candidates stand twice"),
        (lambda: classify(batch=0), "batch must be at least 1"),
        (lambda: classify(share=0.0), "share must be positive"),
        (lambda: classify(smoothing=1.0), "smoothing is 1.0"),
        (lambda: regress().example(PRICES[0] | {"target": math.nan}), "must be a finite number"),
        (lambda: regress().example(PRICES[0] | {"target": "dear"}), "target 'target' is 'dear'"),
        (lambda: regress(bins=1), "bins must be >= 2"),
        (lambda: forecast().example(LINES[0] | {"future": [1.0, 2.0]}), "has 2 values, the horizon is 3"),
        (lambda: forecast().example(LINES[0] | {"future": [1.0, math.inf, 2.0]}), "infinite future values"),
        (lambda: forecast().example(LINES[0] | {"past": [math.nan] * 9}), "every value is missing"),
        (lambda: fill().example({"text": " \n "}), "is empty"),
        (lambda: Retrieve(name="pairs", source=Listed({"train": PAIRS}), batch=1), "nothing to choose among"),
    ],
)  # fmt: skip
def test_data_that_makes_no_sense_is_refused_in_one_line(make, message):
    with pytest.raises(UserError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_targets_that_are_all_equal_or_not_finite_are_refused_before_training():
    for value, message in ((5.0, "nothing to regress"), (math.inf, "the target of record price/0 is inf")):
        rows = [record | {"target": value} for record in PRICES]
        with pytest.raises(UserError, match=message):
            ready(Regress(name="prices", source=Listed({"train": rows}), inputs={"table": "row"}))


def test_a_task_whose_modality_is_not_in_the_recipe_is_refused():
    task = Classify(name="t", source=Listed({"train": LIGHTS}), inputs={"tabel": "row"}, classes=COLOURS)
    with pytest.raises(UserError, match="modality 'tabel' is not in the recipe; did you mean 'table'"):
        task.bind(modalities(), None, {})


# --- metrics ---


def test_metrics_of_two_halves_merge_to_those_of_the_whole():
    values = torch.arange(7.0)
    whole = {"x": mean_of(values), "only": Mean(1.0, 2.0)}
    halves = merge({"x": mean_of(values[:2])}, {"x": mean_of(values[2:]), "only": Mean(1.0, 2.0)})
    assert halves == whole
    assert math.isnan(Mean().value)
    assert Mean(8.0, 2.0, root=True).value == 2.0


def test_a_batch_counts_the_answers_that_are_asked():
    task = classify(smoothing=0.1)
    batch = task.collate([task.example(record) for record in LIGHTS[:5]])
    assert (batch.count, batch.smoothing, batch.scale, batch.candidates) == (5, 0.1, "classify", "lights")
    assert isinstance(task.source.open("test"), Records)


def test_what_is_no_number_is_found_last():
    log_p = torch.full((2, 3), float("nan"))
    right = torch.tensor([[True, False, False], [False, True, False]])
    found = retrieve().score(log_p, right)
    assert found["recall@1"].value == 0 and found["median rank"].value == 3


def pictures_with_captions() -> list[dict]:
    return [
        {
            "id": w,
            "image": np.full((4, 4, 3), 40 * i, np.uint8),
            "said": [f"a {w}", f"the {w}", f"one {w}"][: 2 + i % 2],
        }
        for i, w in enumerate(("cat", "dog", "cow", "hen"))
    ]


class Captioned:
    """Four pictures of two or three captions."""

    def open(self, split: str) -> Records:
        return Records(pictures_with_captions(), {})


def test_several_captions_of_a_picture_are_samples_in_training_and_all_right_in_evaluation():
    from generalist.tasks.baselines.ordinary import baseline

    task = Retrieve(name="pairs", source=Captioned(), inputs={"image": "image"}, partners={"text": "said"}, batch=4)
    training, test = task.open("train"), task.open("test")
    assert (len(training), len(test)) == (10, 4)
    assert [training[i]["said"] for i in range(5)] == ["a cat", "the cat", "a dog", "the dog", "one dog"]
    assert list(task.texts(test)) == [training[i]["said"] for i in range(10)]
    text = Text(tokenizer="", learn=300, max_length=12, positions=12)
    text.learn_texts(list(task.texts(training)))
    task.bind({"summary": Summary(), "text": text, "image": Image(size=4, patch=2)}, None, {})
    rng = torch.Generator().manual_seed(0)
    learnt = [task.example(training[i], rng) for i in range(10)]
    assert [example.key for example in learnt[:2]] == [learnt[0].key] * 2 and learnt[2].key != learnt[0].key
    assert not any(example.others for example in learnt)
    batch = task.collate([task.example(test[i]) for i in range(4)])
    assert batch.inputs.sequences == 4 and batch.partners.sequences == 10
    assert batch.partner_owner.tolist() == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert batch.keys.tolist() == [learnt[i].key for i in (0, 2, 5, 7)]
    assert task.truth(test[0]) == "a cat | the cat" and task.truths(test[1]) == ["a dog", "the dog", "one dog"]
    assert math.isfinite(baseline(task, training, None, test)["value"])

    settings = modality_settings(task.modalities)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    model = GeneralistModel(GeneralistConfig(modalities=settings, scales=["retrieve"], **sizes)).eval()
    found = answer(task, test, Objective(model, {}, task.modalities))
    unit = [torch.nn.functional.normalize(side, dim=-1) for side in (found.queries, found.members)]
    cosine, owner = unit[0] @ unit[1].T, torch.tensor([0, 0, 1, 1, 1, 2, 2, 3, 3, 3])
    assert cosine.shape == (4, 10)
    forward = (owner[cosine.argmax(1)] == torch.arange(4)).float().mean()
    backward = (cosine.argmax(0) == owner).float().mean()
    assert found.metrics["recall@1 forward"] == pytest.approx(float(forward))
    assert found.metrics["recall@1 backward"] == pytest.approx(float(backward))
    assert found.columns["choices"].tolist() == [10] * 4 + [4] * 10
