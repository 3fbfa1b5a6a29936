"""The model in the evaluation packages: CLIP_benchmark on a local webdataset, EleutherAI's harness on a local task."""

import io
import json
import tarfile
from pathlib import Path

import clients
import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack

CLASSES = ["red seven", "blue nine", "sound of two"]
TEMPLATES = ["a {c}", "{c} on a table"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """Eleven pictures of different shapes in two shards, as CLIP_benchmark lays them out."""
    from PIL import Image

    root = tmp_path_factory.mktemp("wds")
    (root / "classnames.txt").write_text("\n".join(CLASSES))
    (root / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES))
    (root / "test").mkdir()
    (root / "test" / "nshards.txt").write_text("2")
    for shard, members in enumerate((range(7), range(7, 11))):
        with tarfile.open(root / "test" / f"{shard}.tar", "w") as tar:
            for i in members:
                png = io.BytesIO()
                Image.fromarray(picture(i)).save(png, "PNG")
                for name, content in ((f"s{i}.cls", str(i % 3).encode()), (f"s{i}.png", png.getvalue())):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return root


def picture(i: int) -> np.ndarray:
    return clients.picture(*((9, 14), (20, 7), (12, 12))[i % 3], seed=i)


def test_clip_benchmark_scores_a_local_webdataset_as_the_law_does(folder, shards, tmp_path, monkeypatch):
    pytest.importorskip("clip_benchmark", reason="pip install generalist-encoder[benchmarks]")
    from generalist.clients.clip_benchmark import main

    out = tmp_path / "result.json"
    words = ["eval", "--model_type", "generalist", "--model", str(folder), "--pretrained", "none", "--no_amp"]
    words += ["--dataset", "wds/mine", "--dataset_root", str(shards), "--task", "zeroshot_classification"]
    monkeypatch.setattr("sys.argv", ["clip_benchmark"])
    main([*words, "--num_workers", "0", "--batch_size", "4", "--output", str(out), "--quiet"])
    found = json.loads(out.read_text())["metrics"]

    model, processor = clients.model_and_processor()
    texts = [processor(text=[template.format(c=c) for template in TEMPLATES]) for c in CLASSES]
    names = [normalize(model.encode(text).mean(0), dim=0) for text in texts]
    cosines = model.encode(processor(image=[picture(i) for i in range(11)])) @ torch.stack(names).T
    labels = torch.arange(11) % 3
    right = cosines.argmax(-1) == labels
    assert found["acc1"] == pytest.approx(float(right.float().mean()))
    recall = np.mean([float(right[labels == c].float().mean()) for c in range(3)])
    assert found["mean_per_class_recall"] == pytest.approx(recall)


def test_pictures_of_any_shape_keep_their_features_in_a_batch_of_squares(folder):
    from generalist.clients.clip_benchmark import load

    clip, transform, tokenize = load(str(folder))
    model, processor = clients.model_and_processor()
    pictures = [picture(i) for i in range(3)]
    images = torch.stack([transform(p) for p in pictures])
    assert images.shape == (3, 4, 12, 12)
    with torch.no_grad():
        got = normalize(clip.encode_image(images), dim=-1)
        texts = normalize(clip.encode_text(tokenize(clients.TEXTS)), dim=-1)
    torch.testing.assert_close(got, model.encode(processor(image=pictures)), atol=1e-5, rtol=0)
    torch.testing.assert_close(texts, model.encode(processor(text=clients.TEXTS)), atol=1e-5, rtol=0)


QUESTIONS = [
    {"question": "which is red", "choices": ["a seven", "a nine", "a table"], "answer": 0},
    {"question": "which is blue", "choices": ["a seven", "a nine"], "answer": 1},
    {"question": "what is a photo of", "choices": ["one thing", "two", "words", "a sound"], "answer": 3},
]


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Path:
    """A multiple-choice task of the harness that lies on this disk: its YAML beside its questions."""
    pytest.importorskip("lm_eval", reason="pip install generalist-encoder[benchmarks]")
    home = tmp_path_factory.mktemp("task")
    (home / "questions.jsonl").write_text("\n".join(json.dumps(q) for q in QUESTIONS))
    (home / "colours.yaml").write_text(f"""
task: colours
dataset_path: json
dataset_kwargs:
  data_files:
    test: {home}/questions.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
  - metric: acc_norm
""")
    return home


def test_the_harness_ranks_the_choices_of_a_local_task_by_the_law(folder, task):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    import generalist.clients.lm_eval  # noqa: F401

    manager = TaskManager(include_path=str(task), include_defaults=False)
    words = {"tasks": ["colours"], "task_manager": manager, "bootstrap_iters": 0}
    out = simple_evaluate("generalist", f"pretrained={folder}", **words)
    model, processor = clients.model_and_processor()
    right = []
    for asked, sample in zip(QUESTIONS, out["samples"]["colours"], strict=True):
        inputs, choices = processor(text=[asked["question"]]), processor.candidates(asked["choices"])
        log_p = model.log_likelihood(inputs, choices, model.config.zero_shot_scale)[0]
        got = [float(r[0][0]) for r in sample["resps"]]
        assert got == pytest.approx(log_p.tolist(), abs=1e-5) and sum(np.exp(got)) == pytest.approx(1, abs=1e-5)
        right.append(int(log_p.argmax()) == asked["answer"])
    assert out["results"]["colours"]["acc,none"] == pytest.approx(np.mean(right))


def test_the_harness_own_command_runs_with_the_model_known_to_it(folder, task, monkeypatch, capsys):
    from generalist.clients.lm_eval import main

    words = ["run", "--model", "generalist", "--model_args", f"pretrained={folder}", "--tasks", "colours"]
    monkeypatch.setattr("sys.argv", ["lm_eval", *words, "--include_path", str(task)])
    main()
    printed = capsys.readouterr().out
    assert "colours" in printed and "acc_norm" in printed


def request(kind, *args, document=0):
    from lm_eval.api.instance import Instance

    return Instance(kind, {}, args, 0, metadata=("mine", document, 1))


def test_words_one_after_another_are_the_likelihood_of_what_greedy_decoding_writes(folder, task):
    from generalist.clients.lm_eval import GeneralistLM
    from generalist.model.decode import decode

    lm = GeneralistLM(str(folder), by="words", batch_size=2)
    inputs = [lm._asked(context, False) for context in ("a red seven", "some other words on a table")]
    found = decode(lm.model, inputs, lm.text, lm.members, lm.scale, steps=6, end=lm.text.eot)
    for i, context in enumerate(("a red seven", "some other words on a table")):
        words = lm.text.decode(found.words(i))
        answers = [words, "a blue nine", "a table"]
        got = lm.loglikelihood([request("loglikelihood", context, f" {answer}") for answer in answers])
        for answer, (log_p, greedy) in zip(answers, got, strict=True):
            by_hand, likeliest, ids = 0.0, True, lm.text.ids(answer)
            for t, word in enumerate(ids.tolist()):
                asked = [[*lm._asked(context, False), lm.text.next_span(ids[:t])]]
                with torch.no_grad():
                    p = lm.model.score(lm.model.features(pack(asked)), lm.members, lm.scale)[0]
                by_hand += float(p[word])
                likeliest = likeliest and int(p.argmax()) == word
            assert log_p == pytest.approx(by_hand, abs=1e-3) and greedy == likeliest
    (rolling,) = lm.loglikelihood_rolling([request("loglikelihood_rolling", "a blue nine")])
    assert rolling < 0


def test_greedy_answers_stop_where_the_harness_says(folder, task):
    from generalist.clients.lm_eval import GeneralistLM

    lm = GeneralistLM(str(folder), by="words")
    (whole,) = lm.generate_until([request("generate_until", "a red seven", {"until": [], "max_gen_toks": 6})])
    assert len(whole) > 2
    (cut,) = lm.generate_until([request("generate_until", "a red seven", {"until": [whole[2]], "max_gen_toks": 6})])
    assert cut == whole.partition(whole[2])[0]


def test_what_the_harness_cannot_ask_is_refused_in_one_line(folder, task):
    from generalist.clients.lm_eval import GeneralistLM

    with pytest.raises(UserError, match="candidates, words"):
        GeneralistLM(str(folder), by="candidate")
    with pytest.raises(UserError, match="logit scale"):
        GeneralistLM(str(folder), scale="classifi")
    lm = GeneralistLM(str(folder))
    with pytest.raises(UserError, match="by=words"):
        lm.loglikelihood([request("loglikelihood", "a red seven", " alone")])
    with pytest.raises(UserError, match="by=words"):
        lm.loglikelihood_rolling([request("loglikelihood_rolling", "a red seven")])
    empty = lm.loglikelihood([request("loglikelihood", "", f" {c}") for c in CLASSES])
    assert sum(np.exp(p) for p, _ in empty) == pytest.approx(1, abs=1e-5)
