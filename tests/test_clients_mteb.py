"""MTEB and its image tasks (MIEB) on tasks of this machine: through sentence-transformers the folder scores what the
model's own cosines do.
"""

import clients
import pytest
from scipy.stats import spearmanr

mteb = pytest.importorskip("mteb", reason="pip install mteb")

UNSAID = ("reference", "date", "domains", "task_subtypes", "license", "annotations_creators", "dialect",
          "sample_creation")  # fmt: skip
PAIRS = [(one, other) for one in clients.TEXTS for other in clients.TEXTS]


def local_task():
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.sts import AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata

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
            **dict.fromkeys(UNSAID),
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


def pictures_by_name():
    """Twelve pictures, the names of five classes, and labels that the model's own cosines give to eight of them."""
    from PIL import Image

    model, processor = clients.model_and_processor()
    pictures = [Image.fromarray(clients.picture(12, 12, i)) for i in range(12)]
    names = model.encode(processor(text=clients.TEXTS), side="candidate")
    found = (model.encode(processor(image=pictures)) @ names.T).argmax(1).tolist()
    return pictures, [one if i < 8 else (one + 1) % len(clients.TEXTS) for i, one in enumerate(found)]


def local_pictures(pictures, labels):
    from datasets import Dataset, DatasetDict, Features, Image, Value
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.abstasks.zeroshot_classification import AbsTaskZeroShotClassification

    class Seen(AbsTaskZeroShotClassification):
        metadata = TaskMetadata(
            name="LocalZeroShot",
            description="pictures of this machine",
            dataset={"path": "local/pictures", "revision": "1"},
            type="ZeroShotClassification",
            category="i2t",
            modalities=["image", "text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="accuracy",
            bibtex_citation="",
            **dict.fromkeys(UNSAID),
        )

        def load_data(self, **kwargs):
            features = Features({"image": Image(), "label": Value("int64")})
            self.dataset = DatasetDict(test=Dataset.from_dict({"image": pictures, "label": labels}, features=features))
            self.data_loaded = True

        def get_candidate_labels(self):
            return list(clients.TEXTS)

    return Seen()


def test_a_local_image_task_has_the_accuracy_of_the_models_own_cosines(folder):
    package = pytest.importorskip("sentence_transformers", reason="pip install generalist-encoder[clients]")
    import generalist  # noqa: F401

    encoder = mteb.SentenceTransformerEncoderWrapper(package.SentenceTransformer(str(folder), device="cpu"))
    # of a model that does not come from the hub MTEB takes for granted that it reads texts alone
    encoder.mteb_model_meta = encoder.mteb_model_meta.model_copy(update={"modalities": ["image", "text"]})
    task = local_pictures(*pictures_by_name())
    found = mteb.evaluate(encoder, [task], cache=None, overwrite_strategy="always")
    (scores,) = found.task_results[0].scores["test"]
    assert scores["main_score"] == pytest.approx(8 / 12)
