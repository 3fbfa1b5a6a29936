"""The model folder in other packages' hands: sentence-transformers, peft, accelerate, export, onnxruntime, compile."""

import clients
import numpy as np
import pytest
import torch
from torch.nn.functional import normalize


class TextFeatures(torch.nn.Module):
    """Unit text features with a plain signature, for exporters."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).pooler_output


class ImageFeatures(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=pixel_values).pooler_output


def batch(size: int, length: int, seed: int = 0):
    """Random ids Int[size length] and a mask with the last two tokens of the first row hidden."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 200, (size, length), generator=draw)
    mask = torch.ones_like(ids)
    mask[0, -2:] = 0
    return ids, mask


def test_sentence_transformers_loads_the_folder_and_encodes_texts_as_the_model_does(folder):
    package = pytest.importorskip("sentence_transformers", reason="pip install generalist-encoder[clients]")

    import generalist  # noqa: F401

    encoder = package.SentenceTransformer(str(folder), device="cpu")
    texts = ["a red seven", "some other words on a table", "a blue nine"]
    got = encoder.encode(texts, convert_to_tensor=True)
    model, processor = clients.model_and_processor()
    expected = model.encode(processor(text=texts))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.similarity(got, got), expected @ expected.T, atol=1e-5, rtol=0)


def test_sentence_transformers_encodes_pictures_and_sounds_into_the_space_of_the_texts(folder, tmp_path):
    package = pytest.importorskip("sentence_transformers", reason="pip install generalist-encoder[clients]")
    from PIL import Image

    import generalist  # noqa: F401

    encoder = package.SentenceTransformer(str(folder), device="cpu")
    model, processor = clients.model_and_processor()
    pictures = [Image.fromarray(clients.picture(12, 8 + 4 * i, i)) for i in range(3)]
    seen = encoder.encode(pictures, convert_to_tensor=True)
    torch.testing.assert_close(seen, model.encode(processor(image=pictures)), atol=1e-5, rtol=0)
    waves = [{"array": clients.sound(2000 + 500 * i), "sampling_rate": 8000} for i in range(2)]
    heard = encoder.encode(waves, convert_to_tensor=True)
    torch.testing.assert_close(heard, model.encode(processor(audio=waves)), atol=1e-5, rtol=0)
    texts = model.encode(processor(text=clients.TEXTS), side="candidate")
    expected = model.encode(processor(image=pictures)) @ texts.T
    torch.testing.assert_close(
        encoder.similarity(seen, encoder.encode(clients.TEXTS, convert_to_tensor=True)), expected, atol=1e-5, rtol=0
    )
    encoder.save(str(tmp_path))
    again = package.SentenceTransformer(str(tmp_path), device="cpu").encode(pictures, convert_to_tensor=True)
    torch.testing.assert_close(again, seen)


def test_lora_through_peft_trains_saves_loads_and_merges(tmp_path):
    peft = pytest.importorskip("peft", reason="pip install generalist-encoder[lora]")
    model, processor = clients.model_and_processor()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    settings = peft.LoraConfig(r=4, target_modules=["qkv", "mixer.out", "up", "down"], init_lora_weights=True)
    adapted = peft.get_peft_model(model, settings)
    trained, total = adapted.get_nb_trainable_parameters()
    d, hidden, r = 24, 40, 4
    assert trained == 2 * r * ((d + 3 * d) + (d + d) + 2 * (d + hidden)) < total / 5
    text = processor(text=clients.TEXTS, return_tensors="pt")
    image = processor(image=[clients.picture(12, 12, i) for i in range(len(clients.TEXTS))], return_tensors="pt")
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(15):
        loss = adapted(**text, **image, return_loss=True).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    adapted.eval()
    with torch.no_grad():
        expected = adapted(**text).pooler_output
    adapted.save_pretrained(tmp_path)
    fresh, _ = clients.model_and_processor()
    fresh.load_state_dict(before)
    loaded = peft.PeftModel.from_pretrained(fresh, tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**text).pooler_output, expected)
        merged = loaded.merge_and_unload()
        torch.testing.assert_close(merged(**text).pooler_output, expected, atol=1e-5, rtol=0)
    assert merged.state_dict().keys() == before.keys()


def test_accelerate_prepares_trains_and_saves_a_state_that_comes_back(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    model, processor = clients.model_and_processor()
    runner = accelerate.Accelerator(cpu=True)
    wrapped, optimizer = runner.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    inputs = processor(
        text=clients.TEXTS, image=[clients.picture(12, 12, i) for i in range(len(clients.TEXTS))], return_tensors="pt"
    )
    loss = wrapped(**inputs, return_loss=True).loss
    runner.backward(loss)
    optimizer.step()
    assert float(wrapped(**inputs, return_loss=True).loss) < float(loss)
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    runner.save_state(str(tmp_path))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    runner.load_state(str(tmp_path))
    assert all(torch.equal(value, kept[key]) for key, value in model.state_dict().items())


def test_big_model_dispatch_offloads_and_gives_the_same_numbers(folder, tmp_path):
    pytest.importorskip("accelerate")
    from accelerate import disk_offload
    from transformers import AutoModel

    import generalist  # noqa: F401

    ids, mask = batch(2, 7)
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).pooler_output
        disk_offload(model, tmp_path, execution_device=torch.device("cpu"))
        torch.testing.assert_close(model(input_ids=ids, attention_mask=mask).pooler_output, expected)


def test_torch_export_keeps_batch_and_length_dynamic(folder):
    from torch.export import Dim, export

    model, _ = clients.model_and_processor()
    ids, mask = batch(3, 7)
    dynamic = {0: Dim("batch", min=2, max=64), 1: Dim("length", min=3, max=40)}
    wrapped = TextFeatures(model).eval()
    program = export(wrapped, (ids, mask), dynamic_shapes=(dynamic, dynamic))
    for size, length in ((3, 7), (5, 2 * 7), (2, 40)):
        ids, mask = batch(size, length, seed=size)
        torch.testing.assert_close(program.module()(ids, mask), wrapped(ids, mask), atol=1e-5, rtol=0)


class SoundFeatures(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_features: torch.Tensor) -> torch.Tensor:
        return self.model(input_features=input_features).pooler_output


# a batch to trace with, what of it may change (whole patches of 4), and another batch
WHOLE = {
    ImageFeatures: ((3, 3, 12, 8), {0: ("batch", 1, 64), 2: ("rows", 4, 3), 3: ("columns", 4, 3)}, (5, 3, 8, 12)),
    SoundFeatures: ((3, 28, 20), {0: ("batch", 1, 64), 1: ("frames", 4, 200)}, (2, 20 * 4, 20)),
}


def dynamic_axes(kind):
    from torch.export import Dim

    shape, axes, other = WHOLE[kind]
    made = {axis: step * Dim(name, min=1 if step > 1 else 2, max=most) for axis, (name, step, most) in axes.items()}
    return torch.randn(shape), (made,), torch.randn(other)


@pytest.mark.parametrize("kind", WHOLE)
def test_torch_export_keeps_number_and_size_of_pictures_and_sounds_dynamic(kind):
    model, _ = clients.model_and_processor()
    given, dynamic, more = dynamic_axes(kind)
    wrapped = kind(model).eval()
    program = torch.export.export(wrapped, (given,), dynamic_shapes=dynamic)
    torch.testing.assert_close(program.module()(more), wrapped(more), atol=1e-5, rtol=0)


@pytest.mark.soak  # half a minute each: the exporter
@pytest.mark.parametrize("kind", WHOLE)
def test_onnx_gives_the_features_of_pictures_and_sounds_in_onnxruntime_at_any_size(kind, tmp_path):
    pytest.importorskip("onnx", reason="pip install generalist-encoder[clients]")
    runtime = pytest.importorskip("onnxruntime", reason="pip install generalist-encoder[clients]")
    pytest.importorskip("onnxscript", reason="pip install generalist-encoder[clients]")
    model, _ = clients.model_and_processor()
    given, dynamic, more = dynamic_axes(kind)
    wrapped = kind(model).eval()
    words = {"dynamo": True, "dynamic_shapes": dynamic, "verbose": False, "optimize": False}
    torch.onnx.export(wrapped, (given,), **words).save(str(tmp_path / "model.onnx"))
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: more.numpy()})
    np.testing.assert_allclose(got, wrapped(more).detach().numpy(), atol=1e-4)


def test_onnx_gives_the_same_features_in_onnxruntime_at_any_batch_and_length(tmp_path):
    pytest.importorskip("onnx", reason="pip install generalist-encoder[clients]")
    runtime = pytest.importorskip("onnxruntime", reason="pip install generalist-encoder[clients]")
    pytest.importorskip("onnxscript", reason="pip install generalist-encoder[clients]")
    from torch.export import Dim

    model, _ = clients.model_and_processor()
    wrapped = TextFeatures(model).eval()
    ids, mask = batch(3, 7)
    dynamic = {0: Dim("batch", min=2, max=64), 1: Dim("length", min=3, max=40)}
    path = tmp_path / "text.onnx"
    program = torch.onnx.export(
        wrapped, (ids, mask), dynamo=True, dynamic_shapes=(dynamic, dynamic), verbose=False, optimize=False
    )
    program.save(str(path))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for size, length in ((3, 7), (2, 19)):
        ids, mask = batch(size, length, seed=size)
        feed = dict(zip([i.name for i in session.get_inputs()], (ids.numpy(), mask.numpy()), strict=True))
        (got,) = session.run(None, feed)
        np.testing.assert_allclose(got, wrapped(ids, mask).detach().numpy(), atol=1e-4)


def test_torch_compile_traces_forward_without_a_graph_break():
    model, processor = clients.model_and_processor()
    inputs = processor(text=clients.TEXTS[:3], image=[clients.picture(12, 8, i) for i in range(3)], return_tensors="pt")
    explained = torch._dynamo.explain(lambda **x: model(**x).logits)(**inputs)
    assert explained.graph_break_count == 0 and explained.graph_count == 1, explained.break_reasons
    compiled = torch.compile(lambda **x: model(**x).logits, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(**inputs), model(**inputs).logits, atol=1e-4, rtol=0)


@pytest.mark.soak  # a minute: the compiler
@pytest.mark.timeout(900)
def test_torch_compile_with_its_own_compiler_gives_the_same_numbers_and_gradients():
    model, processor = clients.model_and_processor()
    inputs = processor(text=clients.TEXTS[:3], image=[clients.picture(12, 8, i) for i in range(3)], return_tensors="pt")
    found = []
    with torch._inductor.config.patch(compile_threads=1):  # no pool of processes that outlives the test
        for call in (model, torch.compile(model, fullgraph=True)):
            model.zero_grad()
            loss = call(**inputs, return_loss=True).loss
            loss.backward()
            gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            found.append((loss.detach(), gradients))
    torch.testing.assert_close(found[1], found[0], atol=1e-4, rtol=1e-3)
    assert len(found[0][1]) > 20


def test_unit_features_are_what_retrieval_needs():
    model, processor = clients.model_and_processor()
    text = processor(text=clients.TEXTS, return_tensors="pt")
    image = processor(image=[clients.picture(12, 8, i) for i in range(3)], return_tensors="pt")
    out = model(**text, **image)
    scale = model.log_scale(model.config.zero_shot_scale).exp()
    torch.testing.assert_close(out.logits_per_image, out.image_embeds @ out.text_embeds.T * scale, atol=1e-4, rtol=0)
    torch.testing.assert_close(out.text_embeds, normalize(model.get_text_features(**text).pooler_output, dim=-1))
