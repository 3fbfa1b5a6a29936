"""Samples looked at several times and classes called by several names: what is averaged, what is drawn."""

import math

import numpy as np
import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.data.stream.source import Records
from generalist.evaluate.answer import answer
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.model.objective import Objective
from generalist.recipe.specs import CandidateSpec
from generalist.tasks.candidates.names import Names, candidate_set
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.retrieve import Retrieve
from generalist.tokenizers_mod.audio.audio import Audio
from generalist.tokenizers_mod.base.modalities import modality_settings
from generalist.tokenizers_mod.base.views import clip, crop, seen_as, views_of
from generalist.tokenizers_mod.numbers.imu import Imu
from generalist.tokenizers_mod.text.bpe import train_bpe
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image
from generalist.tokenizers_mod.vision.spectral import Spectral
from generalist.tokenizers_mod.vision.video import Video
from generalist.tokenizers_mod.vision.xray import XRay
from tests.small import Listed

CLASSES = ["run", "swim", "sit"]


def made(**video):
    """Modalities, and a model with every weight drawn."""
    text = Text(tokenizer=train_bpe(CLASSES, 262).to_str(), max_length=9, positions=9)
    modalities = {"summary": Summary(), "text": text, "video": Video(size=16, patch=8, frames=2, **video)}
    model = GeneralistModel(
        GeneralistConfig(
            hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20,
            modalities=modality_settings(modalities), scales=["classify", "retrieve"],
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return modalities, model


def films(count: int, frames: int = 9) -> list[dict]:
    shape = (frames, 3, 20, 40)
    return [{"id": str(i), "video": torch.rand(shape), "label": i % 3, "caption": CLASSES[i % 3]} for i in range(count)]


def bound(task, modalities, rows):
    records = Records(rows, {"classes": CLASSES})
    task.bind(modalities, None, records.info)
    task.adopt(task.candidate_set(records))
    return records


def test_clips_are_interleaved_and_crops_run_along_the_longer_side():
    film = torch.arange(7)
    assert [clip(film, j, 3, 0).tolist() for j in range(3)] == [[0, 3, 6], [1, 4], [2, 5]]
    assert clip(film, 0, 3, 2).tolist() == [0, 6]
    assert clip(film[:2], 1, 3, 2).tolist() == [0, 1]  # fewer frames than clips: the whole film
    wide = torch.arange(5 * 7).view(1, 5, 7)
    assert [crop(wide, (3, 3), j, 3)[0, 0, 0].item() for j in range(3)] == [7, 9, 11]  # row 1, columns 0, 2, 4
    assert [crop(wide.mT, (3, 3), j, 3)[0, 0, 0].item() for j in range(3)] == [7, 9, 11]
    assert crop(wide, (3, 3), 0, 1)[0, 0, 0].item() == 9  # one crop is the middle


def test_a_view_shows_its_frames_and_its_part_of_the_picture():
    video = Video(size=16, patch=16, frames=2, clips=4, crops=3)
    assert video.views == views_of([video, Summary()]) == 12
    film = torch.zeros(8, 3, 16, 48)
    for t in range(8):
        for third in range(3):
            film[t, :, :, 16 * third : 16 * third + 16] = (3 * t + third) / 24
    seen = []
    for view in range(12):
        with seen_as([video], view):
            pixels = video.span(video.read(film)).data["patch"].mean(1) * 0.5 + 0.5
        seen.append((24 * pixels).round().int().tolist())
    # view = 3 * clip + third: clip j holds frames j and j + 4
    assert seen == [[3 * j + third, 3 * (j + 4) + third] for j in range(4) for third in range(3)]
    assert video.view is None and video.taken == 2
    with pytest.raises(UserError, match="crops 0 >= 1"):
        Video(crops=0)


def test_a_film_is_decoded_once_for_all_its_views(monkeypatch):
    video, rows = Video(size=16, patch=8, frames=2, clips=2, crops=3), films(2)
    rows = [row | {"video": list(row["video"])} for row in rows]
    count = []
    plain = Video._read
    monkeypatch.setattr(Video, "_read", lambda self, raw: count.append(1) or plain(self, raw))
    for row in rows:
        for view in range(6):
            with seen_as([video], view):
                video.read(row["video"])
    assert len(count) == 2
    video.read(rows[1]["video"])  # outside, nothing is kept
    assert "_seen" not in video.__dict__


def seen(modality, value):
    """The tokens of every view."""
    spans = []
    for view in range(modality.views):
        with seen_as([modality], view):
            spans.append(modality.span(modality.read(value)).data["patch"])
    assert modality.view is None
    return spans


def test_a_long_recording_is_seen_as_windows_from_its_start_to_its_end():
    imu = Imu(channels=2, patch=2, window=4, windows=3)
    signal = torch.arange(11).float().unsqueeze(1).expand(11, 2)
    assert [patches[:, :2].flatten().tolist() for patches in seen(imu, signal)] == [
        [0, 1, 2, 3], [4, 5, 6, 7], [7, 8, 9, 10],
    ]  # fmt: skip
    assert imu.span(imu.read(signal)).data["patch"][0, 0] == 3  # the ordinary one is the middle
    short = seen(imu, signal[:4])
    assert all(torch.equal(patches, short[0]) for patches in short)
    audio = Audio(rate=1000, mels=4, patch=[4, 2], stride=[4, 2], max_seconds=0.5, windows=2)
    sound = torch.randn(1700, generator=torch.Generator().manual_seed(0)).numpy()
    first, last = seen(audio, (sound, 1000))
    assert torch.equal(first, audio.span(torch.from_numpy(sound[:500])).data["patch"])
    assert torch.equal(last, audio.span(torch.from_numpy(sound[-500:])).data["patch"])
    for wrong in (lambda: Imu(windows=2), lambda: Imu(window=8, windows=0), lambda: Audio(windows=2)):
        with pytest.raises(UserError, match=r"windows is [02]"):
            wrong()


def test_a_cube_is_seen_in_its_eight_mirrored_and_transposed_forms():
    spectral = Spectral(bands=1, patch=3, views=8)
    cube = torch.arange(9.0).view(3, 3, 1)
    forms = seen(spectral, cube)
    grids = {tuple(patches[0, :9].tolist()) for patches in forms}
    square = cube[..., 0].numpy()
    turns = [np.rot90(s, k) for s in (square, square.T) for k in range(4)]
    assert len(grids) == 8 and grids == {tuple(turn.flatten().tolist()) for turn in turns}
    assert torch.equal(forms[0], spectral.span(spectral.read(cube)).data["patch"])
    with pytest.raises(UserError, match=r"views 9 in 1\.\.8"):
        Spectral(views=9)


@pytest.mark.parametrize("modality", [Image, XRay])
def test_a_picture_is_seen_moved_by_a_pixel_in_every_direction(modality):
    image = modality(size=4, patch=4, channels=1, mean=0.0, std=1.0, shift=2, views=9)
    pixels = torch.rand(4, 4, generator=torch.Generator().manual_seed(0)).numpy()
    forms = [patches.view(4, 4).numpy() for patches in seen(image, pixels)]
    wide = np.pad(pixels, 1, mode="edge")
    expected = [wide[1 - dy : 5 - dy, 1 - dx : 5 - dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    assert {form.tobytes() for form in forms} == {np.ascontiguousarray(e).tobytes() for e in expected}
    assert np.array_equal(forms[0], pixels)
    for wrong in ({"views": 2}, {"views": 10, "shift": 1}, {"views": 0, "shift": 1}):
        with pytest.raises(UserError, match=r"views is \d+ with shift"):
            modality(size=4, patch=4, **wrong)


@torch.no_grad()
def test_probabilities_of_twelve_views_are_averaged():
    modalities, model = made(clips=4, crops=3)
    task = Classify(name="k", source=Listed({"train": []}), inputs={"video": "video"}, scale="classify")
    records = bound(task, modalities, films(5))
    answers = answer(task, records, Objective(model, {"k": task.candidates}, modalities))
    assert answers.queries.shape == (5, 12, 12) and answers.log_p(slice(None)).shape == (5, 3)
    members = Objective(model, {"k": task.candidates}, modalities).members("k")
    for i in (0, 4):
        p = []
        for view in range(12):
            with seen_as(modalities.values(), view):
                spans = task.example(records[i]).inputs
            p.append(model.score(model.features(pack([spans])), members, "classify").exp()[0])
        torch.testing.assert_close(answers.log_p(slice(i, i + 1))[0].exp(), torch.stack(p).mean(0))
        assert torch.stack(p).std(0).max() > 1e-4  # the views do differ
    log_p = answers.log_p(slice(None))
    nll = -log_p.gather(1, torch.tensor([[i % 3] for i in range(5)])).mean()
    assert answers.metrics["nll"] == pytest.approx(float(nll), abs=1e-5)


@torch.no_grad()
def test_one_view_is_the_ordinary_evaluation():
    modalities, model = made()
    task = Classify(name="k", source=Listed({"train": []}), inputs={"video": "video"}, scale="classify")
    records = bound(task, modalities, films(5))
    answers = answer(task, records, Objective(model, {"k": task.candidates}, modalities))
    assert answers.views == 1 and answers.queries.shape == (5, 12)


@torch.no_grad()
def test_a_film_is_found_by_the_mean_direction_of_its_views():
    modalities, model = made(clips=2, crops=1)
    inputs, partners = {"video": "video"}, {"text": "caption"}
    task = Retrieve(name="r", source=Listed({"train": []}), inputs=inputs, partners=partners, scale="retrieve")
    records = Records(films(3))
    task.bind(modalities, None, {})
    answers = answer(task, records, Objective(model, {}, modalities))
    assert answers.queries.shape == (3, 12) and answers.views == 1
    assert any(name.endswith(" backward") for name in answers.metrics)
    both = []
    for view in range(2):
        with seen_as(modalities.values(), view):
            both.append(model.encode([task.example(records[1]).inputs])[0])
    torch.testing.assert_close(answers.queries[1], (both[0] + both[1]) / 2)


# --- synonyms ---


def drawing(specs=None):
    modalities, model = made()
    names = Names(CLASSES, synonyms={"run": ["jog", "race"], "sit": ["rest"]})
    return Objective(model, {"k": names}, modalities, specs), modalities


def spans_of(sequences):
    return [tuple(s[1].data["ids"].tolist()) for s in sequences]


def test_training_draws_one_name_a_class_and_batch_evenly():
    objective, modalities = drawing()
    text = modalities["text"]
    ids = {tuple(text.ids(w).tolist()): w for w in ("run", "jog", "race", "swim", "sit", "rest")}
    counts: dict[str, int] = {}
    for _ in range(300):
        for word in spans_of(objective._drawn("k")):
            counts[ids[word]] = counts.get(ids[word], 0) + 1
    assert counts["swim"] == 300 and counts["sit"] + counts["rest"] == 300
    for word, share in (("run", 1 / 3), ("jog", 1 / 3), ("race", 1 / 3), ("rest", 1 / 2)):
        assert abs(counts[word] / 300 - share) < 4 * math.sqrt(share * (1 - share) / 300), word


def test_draws_are_the_same_on_every_rank_and_after_a_resume():
    one, _ = drawing()
    two, _ = drawing()
    assert [spans_of(one._drawn("k")) for _ in range(5)] == [spans_of(two._drawn("k")) for _ in range(5)]
    assert int(one.state_dict()["draws"]) == 5
    resumed, _ = drawing()
    resumed.load_state_dict(one.state_dict())
    assert spans_of(resumed._drawn("k")) == spans_of(one._drawn("k"))


def test_the_loss_is_that_of_the_drawn_names_in_training_and_of_the_names_in_evaluation():
    objective, modalities = drawing({"k": CandidateSpec()})
    task = Classify(name="k", source=Listed({"train": []}), inputs={"video": "video"}, scale="classify")
    task.bind(modalities, objective.sets["k"], {})
    batch = task.collate([task.example(row) for row in films(4)])
    model = objective.model
    objective.eval()
    plain = float(objective(batch))
    assert float(objective(batch)) == plain and int(objective.draws) == 0
    objective.train()
    losses = [float(objective(batch)) for _ in range(12)]
    assert len({round(x, 5) for x in losses}) > 3 and int(objective.draws) == 12
    objective.draws.zero_()
    with torch.no_grad():
        members = model.features(pack(objective._drawn("k")), candidate=True)
        log_p = model.score(model.features(batch.inputs), members, "classify")
    assert losses[0] == pytest.approx(float(-log_p.gather(1, batch.inputs.labels.unsqueeze(1)).sum()), rel=1e-5)


def test_synonyms_come_from_the_source_are_saved_and_must_name_a_class():
    rows = films(2)
    task = Classify(name="k", source=Listed({"train": rows}), inputs={"video": "video"})
    records = Records(rows, {"classes": CLASSES, "synonyms": {"swim": ["crawl"]}})
    names = task.candidate_set(records)
    assert names.synonyms == {"swim": ["crawl"]} and list(task.texts(records)) == [*CLASSES, "crawl"]
    assert candidate_set(names.to_dict()) == names
    with pytest.raises(UserError, match="synonyms of 'swimm', which is no candidate; did you mean 'swim'"):
        Names(CLASSES, synonyms={"swimm": ["crawl"]})
    plain = Names(CLASSES)
    assert "draws" not in Objective(made()[1], {"k": plain}, made()[0]).state_dict()
