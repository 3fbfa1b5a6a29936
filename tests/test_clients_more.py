"""What is left of the list of clients: named features, devices, refused kernels, the table of them in their page."""

import ast
import re
from pathlib import Path

import clients
import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("modality", "raw"),
    [
        ("text", ["a red seven", "some words"]),
        ("image", [clients.picture(12, 7), clients.picture(12, 8, 1), clients.picture(7, 12, 2)]),
        ("audio", [(clients.sound(2000), 8000), (clients.sound(3333, 1), 8000)]),
    ],
)
def test_named_features_are_output_objects_and_tuples_on_request(modality, raw):
    model, processor = clients.model_and_processor()
    tensors = processor(**{modality: raw}, return_tensors="pt")
    features = getattr(model, f"get_{modality}_features")
    out = features(**tensors)
    assert out.pooler_output.shape == (len(raw), 24) and out.last_hidden_state.shape[::2] == (len(raw), 24)
    torch.testing.assert_close(
        normalize(out.pooler_output, dim=-1), model.encode(processor(**{modality: raw})), atol=1e-5, rtol=0
    )
    assert torch.equal(features(**tensors, return_dict=False)[1], out.pooler_output)


@pytest.mark.parametrize("place", ["cpu", {"": "cpu"}, "auto"])
def test_a_device_map_places_the_whole_model(folder, place):
    pytest.importorskip("accelerate")
    from transformers import AutoModel

    import generalist  # noqa: F401

    model = AutoModel.from_pretrained(folder, device_map=place).eval()
    own, processor = clients.model_and_processor()
    tensors = processor(text=clients.TEXTS, return_tensors="pt").to(model.device)
    with torch.no_grad():
        torch.testing.assert_close(model(**tensors).pooler_output.cpu(), own(**tensors.to("cpu")).pooler_output)


def test_a_device_map_lays_what_does_not_fit_on_the_disk(folder, tmp_path):
    pytest.importorskip("accelerate")
    from transformers import AutoModel

    import generalist  # noqa: F401

    room = {"max_memory": {"cpu": "30KB"}, "offload_folder": tmp_path}
    model = AutoModel.from_pretrained(folder, device_map="auto", **room).eval()
    places = model.hf_device_map
    assert set(places.values()) == {"cpu", "disk"} and any(name.startswith("encoder") for name in places)
    own, processor = clients.model_and_processor()
    tensors = processor(text=clients.TEXTS, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(model(**tensors).pooler_output, own(**tensors).pooler_output)


def test_a_pipeline_for_a_modality_that_the_model_lacks_says_so_in_one_line(tmp_path, monkeypatch):
    from PIL import Image
    from transformers import AutoModel, pipeline

    import generalist  # noqa: F401
    from generalist.data.base.errors import UserError

    every = clients.modalities
    for lacks in ("image", "audio"):
        monkeypatch.setattr(clients, "modalities", lambda gone=lacks: {n: m for n, m in every().items() if n != gone})
        clients.save(tmp_path / lacks)
    picture, names = Image.fromarray(clients.picture(12, 12)), ["a red seven", "a blue nine"]
    without_pictures, without_sounds = str(tmp_path / "image"), str(tmp_path / "audio")
    for call, message in (
        (lambda: pipeline("zero-shot-image-classification", model=without_pictures)(picture, candidate_labels=names),
         "takes pixel_values"),
        (lambda: pipeline("image-feature-extraction", model=without_pictures)(picture), "takes pixel_values"),
        (lambda: pipeline("image-text-to-text", model=without_pictures)(picture, text=""), "no modality 'image'"),
        (lambda: pipeline("zero-shot-audio-classification", model=without_sounds)(
            clients.sound(3000), candidate_labels=names), "takes input_features"),
        (lambda: AutoModel.from_pretrained(without_sounds).get_audio_features(torch.zeros(1, 8, 20)),
         "no modality 'audio'"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version, install", [(2, "pip install flash-attn"), (3, "built from its sources")])
def test_flash_attention_says_what_it_needs_where_it_cannot_run(folder, monkeypatch, version, install):
    """Without the package, when loaded and when switched to; with it, but without a GPU."""
    from transformers import AutoModel, PreTrainedModel

    import generalist  # noqa: F401
    from generalist.data.base.errors import UserError

    if torch.cuda.is_available():
        pytest.skip("flash attention can run here")
    name, model = f"flash_attention_{version}", AutoModel.from_pretrained(folder)

    def installed():  # transformers' own check of the device is what is left
        monkeypatch.setattr(PreTrainedModel, "_flash_attn_import_error", lambda self, **_: None)
        model._flash_attn_can_dispatch(version)

    for ask in (
        lambda: AutoModel.from_pretrained(folder, attn_implementation=name),
        lambda: model.set_attn_implementation(name),
        installed,
    ):
        with pytest.raises(UserError, match=install) as caught:
            ask()
        assert "CUDA GPU" in str(caught.value) and "'sdpa'" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("mask", [False, True])
def test_flex_attention_on_a_cpu_answers_and_says_that_it_cannot_learn(folder, mask):
    from transformers import AutoModel

    import generalist  # noqa: F401
    from generalist.data.base.errors import UserError

    if torch.cuda.is_available():
        pytest.skip("flex attention can learn here")
    model = AutoModel.from_pretrained(folder, attn_implementation="flex_attention").train()
    words = {"input_ids": torch.arange(10).view(2, 5)}
    if mask:
        words["attention_mask"] = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    with torch.no_grad():
        assert model(**words).pooler_output.isfinite().all()
    with pytest.raises(UserError, match=r"backward on CPU.*'sdpa'") as caught:
        model(**words).pooler_output.sum().backward()
    assert "\n" not in str(caught.value)


def test_one_request_after_another_wears_its_own_prompts_and_none_leaks(tmp_path):
    """Three parts held at once on one running model, requests interleaved."""
    from generalist.adapt.kept import read_part, save_part, wearing

    model, processor = clients.model_and_processor(prompts=3, linear_heads={"default": 2})
    owners = []
    for seed in range(3):
        owner, _ = clients.model_and_processor(prompts=3, linear_heads={"default": 2})
        torch.manual_seed(seed)
        with torch.no_grad():
            owner.prompts.vectors.normal_()
            owner.linear_heads["default"].linear.weight.normal_()
        save_part(owner, tmp_path / f"{seed}.safetensors")
        owners.append(owner.eval())
    parts = [read_part(tmp_path / f"{seed}.safetensors", model) for seed in range(3)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    candidates = processor.candidates(["a red seven", "a blue nine"])
    answers = set()
    for request in (0, 2, 1, 1, 0, 2):
        inputs = processor(image=[clients.picture(12, 8, request)])
        with wearing(model, parts[request]):
            got = model.rank(inputs, candidates)
        torch.testing.assert_close(got, owners[request].rank(inputs, candidates))
        answers.add(tuple(np.round(got[0].tolist(), 4)))
    assert len(answers) == 3
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_every_test_that_the_table_of_clients_names_exists():
    readme = (ROOT / "generalist" / "hf" / "README.md").read_text(encoding="utf-8")
    table = readme.partition("<!-- clients -->")[2].partition("<!-- end of clients -->")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert len(rows) > 20
    for row in rows:
        client, works, proof = (cell.strip() for cell in row.strip("|").split("|"))
        named = re.findall(r"`(\w+)\.(test_\w+)`", proof)
        assert named and works, client
        for file, test in named:
            tree = ast.parse((ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8"))
            assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, (client, test)
