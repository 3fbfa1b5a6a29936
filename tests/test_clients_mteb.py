"""MTEB on a task of this machine: the folder through sentence-transformers scores what the model's own cosines do."""

import clients
import pytest
from scipy.stats import spearmanr

mteb = pytest.importorskip("mteb", reason="pip install mteb")

PAIRS = [(one, other) for one in clients.TEXTS for other in clients.TEXTS]


def local_task():
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.sts import AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata

    unsaid = ("reference", "date", "domains", "task_subtypes", "license", "annotations_creators", "dialect",
              "sample_creation")  # fmt: skip

    class Local(AbsTaskSTS):
        metadata = TaskMetadata(
            name="LocalSTS",
            description="pairs of this machine",
            dataset={"path": "local/pairs", "revision": "1"},
            type="STS",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="cosine_spearman",
            bibtex_citation="",
            **dict.fromkeys(unsaid),
        )
        min_score, max_score = 0, 1

        def load_data(self, **kwargs):
            first, second = zip(*PAIRS, strict=True)
            columns = {"sentence1": first, "sentence2": second, "score": [float(a == b) for a, b in PAIRS]}
            self.dataset = DatasetDict(test=Dataset.from_dict(columns))
            self.data_loaded = True

    return Local()


def test_a_local_task_has_the_score_of_the_models_own_cosines(folder):
    package = pytest.importorskip("sentence_transformers", reason="pip install generalist-encoder[clients]")
    import generalist  # noqa: F401

    encoder = package.SentenceTransformer(str(folder), device="cpu")
    found = mteb.evaluate(encoder, [local_task()], cache=None, overwrite_strategy="always")
    (scores,) = found.task_results[0].scores["test"]
    model, processor = clients.model_and_processor()
    vectors = [model.encode(processor(text=list(side)), side="candidate") for side in zip(*PAIRS, strict=True)]
    expected = spearmanr((vectors[0] * vectors[1]).sum(-1).numpy(), [float(a == b) for a, b in PAIRS]).statistic
    assert scores["main_score"] == pytest.approx(expected, abs=0.02)
