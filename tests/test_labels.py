"""Labels keep their names, however stored and in whatever order classes are given; rows without are left out."""

import math

import pytest
import torch
from small import Listed, modalities

from generalist.data.base.errors import UserError
from generalist.data.base.labels import Labels
from generalist.data.batch.pack import collate
from generalist.data.batch.types import Example, Span
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.source import ByColumn, Records
from generalist.data.stream.stream import Feed, Steps, loader
from generalist.tasks.candidates.names import Names
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.regress import Regress


def ready(rows, info=None, **settings) -> tuple[Classify, Records]:
    source = Listed({"train": rows}, info or {})
    task = Classify(name="fit", source=source, inputs={"text": "text"}, **settings)
    made, records = modalities(), task.open("train")
    made["text"].learn_texts(list(task.texts(records)))
    task.bind(made, None, records.info)
    task.adopt(task.candidate_set(records))
    return task, records


def answers(rows, info=None, **settings) -> list[str]:
    """The name that the task takes for the right one of every row."""
    task, records = ready([{"text": "a word"} | row for row in rows], info, **settings)
    return [task.truth(records[i]) for i in range(len(records))]


@pytest.mark.parametrize(
    "labels, settings, said",
    [
        (["spam", "ham", "spam"], {"classes": ["spam", "ham"]}, ["spam", "ham", "spam"]),
        (["NA", "null", "None", "?"], {"classes": ["?", "None", "null", "NA"]}, ["NA", "null", "None", "?"]),
        ([True, False], {"classes": ["true", "false"]}, ["true", "false"]),
        ([False, True], {"classes": ["False", "True"]}, ["False", "True"]),
        (["True", "FALSE"], {"classes": ["true", "false"]}, ["true", "false"]),
        ([True, False], {"classes": ["1", "0"]}, ["1", "0"]),
        ([1, 0], {"classes": ["true", "false"]}, ["true", "false"]),
        ([1, 2, 1], {"classes": ["1", "2"]}, ["1", "2", "1"]),
        ([2.0, 1.0], {"classes": ["1", "2"]}, ["2", "1"]),
        ([2, 1], {"classes": ["2", "1"]}, ["2", "1"]),
        (["002", "001"], {"classes": ["001", "002"]}, ["002", "001"]),
        ([1, 0], {"classes": ["cat", "dog"]}, ["dog", "cat"]),
        ([10, 9, 2], {}, ["10", "9", "2"]),
        ([True, False], {}, ["true", "false"]),
        (["b", "a"], {}, ["b", "a"]),
    ],
)
def test_a_label_is_the_class_that_is_called_so(labels, settings, said):
    assert answers([{"label": label} for label in labels], **settings) == said


def test_the_order_of_given_classes_moves_no_label_of_a_source_that_counts_its_own():
    rows, info = [{"label": 0}, {"label": 1}, {"label": 2}], {"classes": ["ant", "bee", "cow"]}
    for given in (["cow", "bee", "ant"], ["bee", "cow", "ant"]):
        assert answers(rows, info, classes=given) == ["ant", "bee", "cow"]
    # folders called 2 and 1: the source counts from zero, and no number is taken for a name
    assert answers(rows[:2], {"classes": ["2", "1"]}, classes=["1", "2"]) == ["2", "1"]
    assert answers(rows, info, classes=["une", "deux", "trois"]) == ["une", "deux", "trois"]
    assert "ant is une" in Labels(["une", "deux", "trois"], info["classes"]).note


def test_integers_among_names_that_are_no_numbers_are_places_and_it_is_said():
    assert "0 is 'cat'" in Labels(["cat", "dog"]).note
    assert Labels(["1", "2"]).note == "" and Labels(["cat", "dog"], ["cat", "dog"]).note == ""


@pytest.mark.parametrize(
    "label, names, message",
    [
        (0, ["1", "2"], "class index 0 is none of the names 1, 2"),
        (True, ["cat", "dog"], "a boolean is named 'true' or 'false'"),
        (["cat", "dog"], ["cat", "dog"], "multilabel"),
        ("cats", ["cat", "dog"], "did you mean 'cat'"),
        (math.nan, ["cat", "dog"], "class index nan"),
        (1.5, ["cat", "dog"], "class index 1.5"),
    ],
)
def test_a_label_that_is_none_of_the_classes_is_refused(label, names, message):
    with pytest.raises(UserError, match=message):
        Labels(names).place(label)


@pytest.mark.parametrize("empty", [None, "", "  ", math.nan])
def test_rows_without_a_label_leave_the_task_and_are_counted(empty):
    rows = [{"text": f"t{i}", "label": empty if i % 8 == 0 else "ab"[i % 2]} for i in range(40)]
    task, records = ready(rows)
    assert [r["text"] for r in (records[i] for i in range(len(records)))] == [f"t{i}" for i in range(40) if i % 8]
    assert records.info["notes"] == ["5 of 40 train records have no 'label' and are left out"]
    steps = Steps({"fit": Feed(records, task.example, task.collate, 7)}, Schedule(["fit"], [1.0]), 0)
    names = {f"t{i}": "ab"[i % 2] for i in range(40)}
    for batch in loader(steps, 0, 6):
        assert batch.inputs.labels is not None and len(batch.inputs.labels) == 7 == batch.inputs.sequences
    assert {task.truth(records[i]) == names[records[i]["text"]] for i in range(len(records))} == {True}


def test_a_task_without_any_label_is_refused_and_an_empty_one_is_named_when_drawn():
    with pytest.raises(UserError, match="no record of train has a 'label'; all 4 are empty"):
        ready([{"text": "t", "label": None}] * 4, classes=["a", "b"])
    task, _ = ready([{"text": "t", "label": "a"}, {"text": "t", "label": "b"}])
    with pytest.raises(UserError, match="has no 'label'"):
        task.example({"text": "t", "label": None}, torch.Generator())
    price = Regress(name="price", source=Listed({"train": [{"target": None}, {"target": 2.0}]}), inputs={"text": "t"})
    assert price.open("train").info["notes"] == ["1 of 2 train records have no 'target' and are left out"]


def test_rows_that_can_be_had_by_column_are_not_read_one_by_one():
    class Rows(ByColumn):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            raise AssertionError("a record was made")

        def column(self, name):
            return ["a", None, "b"] if name == "label" else None

    class Source:
        def open(self, split):
            return Records(Rows())

    found = Classify(name="fit", source=Source(), inputs={"text": "text"}).open("train")
    assert len(found) == 2 and found.column("label") == ["a", "b"]


def test_a_batch_with_a_question_without_a_label_cannot_be_built():
    def example(label):
        span = Span("m", {"value": torch.ones(1, 1)}, 1)
        return Example([span.ask([0], None if label is None else torch.tensor([label]))])

    assert collate("t", [example(1), example(0)], "t").inputs.labels.tolist() == [1, 0]
    assert collate("t", [example(None), example(None)], "t").inputs.labels is None
    for labels in ([1, None, 0], [None, 1], [0, None]):
        with pytest.raises(ValueError, match=f"sequence {labels.index(None)} asks without a label"):
            collate("t", [example(label) for label in labels], "t")


def test_classes_that_differ_in_case_or_spaces_only_are_said_before_the_first_step():
    for names, said in ((["cat", "Cat ", "dog"], True), (["a b", "a  b"], True), (["cat", "cats"], False)):
        task, records = ready([{"text": "t", "label": name} for name in names])
        assert any("differ in case or spaces only" in note for note in task.notes(records)) == said


@pytest.mark.parametrize(("names", "labels"), [([], [True, False, True]), (["true", "false"], [True, False, True])])
def test_what_is_told_of_a_data_set_names_booleans_as_training_does(names, labels):
    from generalist.data.tools.check import check
    from generalist.data.tools.statistics import gather

    rows = [{"id": str(i), "row": {"x": i * 0.5}, "label": label} for i, label in enumerate(labels)]
    records = Records(rows, {"classes": names} if names else {})
    assert dict(check(records, "train")[0].classes) == {"true": 2, "false": 1}
    assert gather(records)["classes"] == {"true": 2, "false": 1}


def test_a_label_written_otherwise_in_case_or_space_is_the_one_name_that_it_can_be():
    labels = Labels(["Ja", "Nein", "a b", "A  B"])
    assert [labels.place(text) for text in ("Ja", " ja ", "NEIN", "a b", "A  B")] == [0, 0, 1, 2, 3]
    with pytest.raises(UserError, match="unknown class 'A b'"):  # two names it can be
        labels.place("A b")


def test_names_that_are_one_but_for_case_or_space_are_refused_before_training_makes_anything_of_them():
    texts = modalities()
    with pytest.raises(UserError, match="candidates 'cat' and 'Cat ' are the same to the text tokenizer"):
        Names(["cat", "dog", "Cat "]).worded(texts, "{}")
    assert len(Names(["cat", "dog"]).worded(texts, "a photo of {}").sequences) == 2


def test_names_that_the_tokenizer_cuts_to_the_same_are_told_before_training_and_refused_as_answers():
    texts = modalities(text={"tokenizer": "clip", "max_length": 4, "positions": 4})
    names = Names(["cat", "dog", "the cat that sat", "the cat that ran"])
    with pytest.warns(UserWarning, match="cannot tell 1 of 4 candidates .* 'the cat that sat' and 'the cat"):
        names.worded(texts, "{}")
    with pytest.raises(UserError, match="candidates 'the cat that sat' and 'the cat that ran' are the same"):
        names.sequences(texts)
