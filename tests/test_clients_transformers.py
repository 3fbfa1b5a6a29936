"""The saved model folder in transformers' own hands: Auto classes, remote code, padded inputs, pipelines, Trainer."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import clients
import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from generalist.data.batch.pack import pack

ROOT = Path(__file__).resolve().parent.parent
NAMES = ["a red seven", "a blue nine", "some words"]


@pytest.fixture(scope="module")
def both():
    return clients.model_and_processor()


RAW = {
    "text": ["a red seven", "some other words on a table"],
    "image": [clients.picture(20, 7), clients.picture(10, 12)],
    "audio": [(clients.sound(2000), 8000), (clients.sound(3333), 8000)],
    "points": [np.random.default_rng(1).normal(size=(n, 3)) for n in (40, 4)],
    "series": [np.random.default_rng(2).normal(size=n) for n in (40, 12)],
    "table": clients.ROWS[:2],
}


@pytest.mark.parametrize("modality", RAW)
def test_padded_tensors_of_any_modality_give_the_features_of_the_packed_path(both, modality):
    model, processor = both
    tensors = processor(**{modality: RAW[modality]}, return_tensors="pt")
    with torch.no_grad():
        out = model(**tensors)
    torch.testing.assert_close(
        normalize(out.pooler_output, dim=-1), model.encode(processor(**{modality: RAW[modality]})), atol=1e-5, rtol=0
    )
    assert out.last_hidden_state.shape[0] == 2 and out.last_hidden_state.shape[2] == 24
    named = model.get_features(modality, **tensors).pooler_output
    torch.testing.assert_close(named, out.pooler_output)


def test_what_stands_in_the_padding_changes_nothing(both):
    model, processor = both
    tensors = processor(text=RAW["text"], return_tensors="pt")
    with torch.no_grad():
        before = model(**tensors).pooler_output
        tensors["input_ids"][tensors["attention_mask"] == 0] = 3
        after = model(**tensors).pooler_output
        all_real = model(input_ids=tensors["input_ids"]).pooler_output
    torch.testing.assert_close(before, after)
    assert (before[0] - all_real[0]).abs().max() > 1e-3  # and the mask is what makes it so


@pytest.mark.parametrize("implementation", ["sdpa", "eager", "flex_attention"])
def test_every_attention_implementation_gives_the_same_features(both, folder, implementation):
    from transformers import AutoModel

    model, processor = both
    other = AutoModel.from_pretrained(folder, attn_implementation=implementation).eval()
    assert other.config._attn_implementation == implementation
    tensors = processor(image=RAW["image"], return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(other(**tensors).pooler_output, model(**tensors).pooler_output, atol=1e-5, rtol=0)
        packed = other.encode(processor(image=RAW["image"]))
    torch.testing.assert_close(packed, model.encode(processor(image=RAW["image"])), atol=1e-5, rtol=0)
    # sequences of different lengths whose words each open a block, as in captioning
    text, pictures = processor.built["text"], processor(image=RAW["image"])
    asked = [
        [replace(spans[0], asked=None), *spans[1:], text.next_span(text.ids(words))]
        for spans, words in zip(pictures, ("a red seven", "some words"), strict=True)
    ]
    with torch.no_grad():
        torch.testing.assert_close(other.features(pack(asked)), model.features(pack(asked)), atol=1e-5, rtol=0)


def test_an_unknown_attention_implementation_is_refused_by_name(both):
    from generalist.data.base.errors import UserError
    from generalist.nn.attention.kernels import kernel

    with pytest.raises(UserError, match="sdpa"):
        kernel("sdpaa")


def test_eager_attention_gives_weights_and_every_layer_its_hidden_states(folder):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    ids = torch.arange(10).view(2, 5)
    out = model(input_ids=ids, output_attentions=True, output_hidden_states=True)
    assert [tuple(w.shape) for w in out.attentions] == [(2, 3, 6, 6)] * 2
    torch.testing.assert_close(out.attentions[0].sum(-1), torch.ones(2, 3, 6))
    assert [tuple(s.shape) for s in out.hidden_states] == [(2, 6, 24)] * 3
    assert model(input_ids=ids, return_dict=False)[1].shape == (2, 24)


def test_a_saved_model_loads_bit_equal_in_one_file_or_in_shards(tmp_path, both):
    from transformers import AutoModel

    import generalist  # noqa: F401

    model, _ = both
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    for name in ("whole", "shards"):
        loaded = AutoModel.from_pretrained(tmp_path / name, device_map="cpu").state_dict()
        assert loaded.keys() == model.state_dict().keys()
        assert all(torch.equal(value, loaded[key]) for key, value in model.state_dict().items())


def test_dtype_is_obeyed(folder, both, tmp_path):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=torch.bfloat16).eval()
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    inputs = both[1](image=RAW["image"], return_tensors="pt").to(torch.bfloat16)
    assert model(**inputs).pooler_output.dtype == torch.bfloat16
    model.save_pretrained(tmp_path)
    assert AutoModel.from_pretrained(tmp_path, dtype="auto").dtype == torch.bfloat16
    assert AutoModel.from_pretrained(tmp_path, dtype="float32").dtype == torch.float32


AUTO = ("AutoConfig", "AutoModel", "AutoProcessor", "AutoTokenizer", "AutoImageProcessor", "AutoFeatureExtractor",
        "AutoModelForZeroShotImageClassification", "AutoModelForImageTextToText", "AutoModelForImageClassification",
        "AutoModelForAudioClassification", "AutoModelForSequenceClassification", "AutoModelForMaskedLM")  # fmt: skip


@pytest.mark.parametrize("how", ["import generalist", "trust_remote_code"])
def test_the_auto_classes_load_the_folder_with_the_import_or_with_remote_code(folder, tmp_path, how):
    """Each in the same fresh process in turn, so that the first to come finds nothing registered."""
    local = how == "import generalist"
    code = f"""
{"import generalist" if local else ""}
import transformers
words = {{}} if {local} else dict(trust_remote_code=True)
for name in {AUTO}:
    loaded = getattr(transformers, name).from_pretrained({str(folder)!r}, **words)
    print(name, type(loaded).__module__.split('.')[0])
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd="/")
    assert run.returncode == 0, run.stderr[-2000:]
    lines = [line.split() for line in run.stdout.splitlines() if line.startswith("Auto")]
    assert [name for name, _ in lines] == list(AUTO)
    assert {home for _, home in lines} <= {"generalist", "tokenizers_mod"}


def test_remote_code_without_the_package_says_what_to_install(folder, tmp_path):
    code = f"""
import transformers
for name in {AUTO}:
    try:
        getattr(transformers, name).from_pretrained({str(folder)!r}, trust_remote_code=True)
    except ImportError as error:
        print(name, error)
"""
    hide = tmp_path / "hide"
    hide.mkdir()
    (hide / "sitecustomize.py").write_text(
        "import sys\nclass Hide:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'generalist': raise ModuleNotFoundError('No module named ' + repr(name), name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    env = {**os.environ, "PYTHONPATH": str(hide), "HF_HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd="/")
    told = [line.split(maxsplit=1) for line in run.stdout.splitlines() if line.startswith("Auto")]
    assert [name for name, _ in told] == list(AUTO), run.stderr[-2000:]
    assert all("pip install generalist-encoder" in line for _, line in told)


def test_zero_shot_image_pipeline_ranks_by_the_law(folder):
    from PIL import Image
    from transformers import pipeline

    import generalist  # noqa: F401

    picture = Image.fromarray(clients.picture(20, 7))
    ranked = pipeline("zero-shot-image-classification", model=str(folder))(
        picture, candidate_labels=NAMES, hypothesis_template="{}"
    )
    model, processor = clients.model_and_processor()
    expected = model.rank(processor(image=picture), processor.candidates(NAMES), model.config.zero_shot_scale)[0]
    assert {r["label"]: pytest.approx(r["score"], abs=1e-5) for r in ranked} == dict(
        zip(NAMES, expected.tolist(), strict=True)
    )


def test_zero_shot_audio_pipeline_ranks_by_the_law(folder):
    from transformers import pipeline

    import generalist  # noqa: F401

    wave = clients.sound(3333)
    ranked = pipeline("zero-shot-audio-classification", model=str(folder))(
        wave, candidate_labels=NAMES, hypothesis_template="{}"
    )
    model, processor = clients.model_and_processor()
    expected = model.rank(processor(audio=[(wave, 8000)]), processor.candidates(NAMES), model.config.zero_shot_scale)[0]
    assert {r["label"]: pytest.approx(r["score"], abs=1e-5) for r in ranked} == dict(
        zip(NAMES, expected.tolist(), strict=True)
    )


def test_one_candidate_is_refused_by_the_pipeline_of_pictures_and_warned_of_by_that_of_sounds(folder):
    """The latter loads the plain model, which people also ask for the cosine of one pair."""
    import warnings

    from PIL import Image
    from transformers import pipeline

    import generalist  # noqa: F401
    from generalist.data.base.errors import UserError

    picture = Image.fromarray(clients.picture(20, 7))
    look = pipeline("zero-shot-image-classification", model=str(folder))
    with pytest.raises(UserError, match="at least two"):
        look(picture, candidate_labels=["a red seven"])
    listen = pipeline("zero-shot-audio-classification", model=str(folder))
    with pytest.warns(UserWarning, match="its probability is 1 whatever the input; give at least two"):
        assert listen(clients.sound(3333), candidate_labels=["a red seven"])[0]["score"] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert len(look([picture, picture], candidate_labels=NAMES, batch_size=2)[0]) == 3
        assert len(listen(clients.sound(3333), candidate_labels=NAMES[:2])) == 2


@pytest.mark.filterwarnings("ignore:1 candidate given")
def test_the_logit_of_one_pair_is_its_scaled_cosine(both):
    model, processor = both
    pair = processor(text="a red seven", image=clients.picture(12, 7), return_tensors="pt")
    out = model(**pair)
    cosine = model.encode(processor(text="a red seven")) @ model.encode(processor(image=clients.picture(12, 7))).T
    torch.testing.assert_close(out.logits, cosine * model.log_scale(model.config.zero_shot_scale).exp())
    assert model(**pair, return_loss=True).loss == 0


def test_feature_extraction_pipelines_give_tokens_or_the_pooled_feature(folder):
    from PIL import Image
    from transformers import pipeline

    import generalist  # noqa: F401

    picture = Image.fromarray(clients.picture(20, 7))
    extract = pipeline("image-feature-extraction", model=str(folder))
    assert np.shape(extract(picture)) == (1, 1 + 3 * 1, 24)
    model, processor = clients.model_and_processor()
    expected = model(**processor(image=picture, return_tensors="pt")).pooler_output
    np.testing.assert_allclose(extract(picture, pool=True), expected.detach(), atol=1e-5)
    words = pipeline("feature-extraction", model=str(folder))("a red seven")
    assert np.shape(words)[2] == 24


def test_the_trainer_trains_a_dual_model_and_saves_a_folder_that_loads(tmp_path):
    from transformers import AutoModel, Trainer, TrainingArguments

    model, processor = clients.model_and_processor()
    model.train()
    data = [{"text": name, "image": clients.picture(12, 12, i)} for i, name in enumerate(clients.TEXTS * 2)]

    def together(rows):
        batch = processor(text=[r["text"] for r in rows], image=[r["image"] for r in rows], return_tensors="pt")
        return {**batch, "return_loss": True}

    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=12,
        per_device_train_batch_size=5,
        learning_rate=3e-3,
        remove_unused_columns=False,
        report_to=[],
        logging_steps=4,
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": False},
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=data, data_collator=together)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < losses[0]
    trainer.save_model(str(tmp_path / "saved"))
    loaded = AutoModel.from_pretrained(tmp_path / "saved").state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in model.state_dict().items())


def test_a_modality_or_tensor_that_the_model_lacks_is_named(both):
    from generalist.data.base.errors import UserError

    model, processor = both
    with pytest.raises(UserError, match="thermal"):
        processor(thermal=[1], return_tensors="pt")
    with pytest.raises(UserError, match="input_idz"):
        model(input_idz=torch.zeros(1, 2, dtype=torch.long))
    with pytest.raises(UserError, match="at least one modality"):
        model()
    with pytest.raises(UserError, match=r"channels|batch, 3"):
        model(pixel_values=torch.zeros(2, 1, 12, 12))
    with pytest.raises(UserError, match="whole patches"):
        model(pixel_values=torch.zeros(2, 3, 13, 12))
    with pytest.raises(UserError, match="positions"):
        model(input_ids=torch.zeros(1, 41, dtype=torch.long))
    with pytest.raises(UserError, match="at least two"):
        processor.candidates(["only one"])


def test_the_hub_mixins_write_the_same_folder(tmp_path, both, monkeypatch):
    """push_to_hub without a hub: what would be uploaded is a folder that loads again."""
    from transformers import AutoModel, AutoProcessor
    from transformers.utils import hub

    sent = {}

    class Api:
        def create_repo(self, repo_id, **kwargs):
            return type("Url", (), {"repo_id": repo_id})()

        def create_branch(self, *args, **kwargs):
            pass

        def create_commit(self, repo_id, operations, **kwargs):
            for operation in operations:
                sent[operation.path_in_repo] = Path(operation.path_or_fileobj).read_bytes()

    monkeypatch.setattr(hub, "hf_api", Api)
    model, processor = both
    model.push_to_hub("somebody/something", create_pr=False)
    processor.push_to_hub("somebody/something", create_pr=False)
    for name, content in sent.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert {"config.json", "model.safetensors", "generalist_remote.py", "README.md", "tokenizer.json"} <= set(sent)
    assert type(AutoProcessor.from_pretrained(tmp_path)).__name__ == "GeneralistProcessor"
    ids = torch.arange(6).view(1, 6)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(input_ids=ids).pooler_output, model(input_ids=ids).pooler_output)
