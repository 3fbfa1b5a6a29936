"""The served model: every way in answers as the model itself does, many in one pass; a request names no file."""

import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import clients
import numpy as np
import pytest
from PIL import Image

from generalist.cli import main
from generalist.serve.batching import Batcher, Full

pytest.importorskip("fastapi", reason="needs the extra serve")
from fastapi.testclient import TestClient

from generalist.hf.predict import ask, load_model
from generalist.serve.app import app_of


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("served") / "run"
    keys = ["steps=3", "baseline=false", "model.width=32", "model.layers=1", "model.hidden=32"]
    assert main(["train", "demo", *keys, "--out", str(out)]) in (0, 1)
    return out


@pytest.fixture(scope="module")
def client(model_folder):
    with TestClient(app_of(model_folder, {})) as found:
        yield found


def png(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(clients.picture(16, 16, seed)).save(out, "PNG")
    return out.getvalue()


def test_about_tells_what_can_be_asked(client):
    told = client.get("/about").json()
    assert told["tasks"]["digits"]["kind"] == "classify" and len(told["tasks"]["digits"]["answers"]) == 10
    assert told["modalities"]["text"]["words"] and not told["modalities"]["image"]["words"]


def test_rank_is_the_models_own_answer(client, model_folder, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(0))
    model, processor = load_model(model_folder)
    expected = ask(model, processor, "digits", {"image": str(path)})
    got = client.post("/rank", files={"image": ("a.png", png(0))}, data={"task": "digits"}).json()
    assert [name for name, _ in got["answers"]] == expected.names[: len(got["answers"])]
    np.testing.assert_allclose([p for _, p in got["answers"]], expected.probabilities[: len(got["answers"])], atol=1e-5)
    among = client.post("/rank", files={"image": ("a.png", png(0))}, data={"candidates": ["cat", "dog"]}).json()
    assert {name for name, _ in among["answers"]} == {"cat", "dog"}
    assert sum(p for _, p in among["answers"]) == pytest.approx(1, abs=1e-5)


def test_json_takes_words_rows_and_numbers(client):
    row = dict.fromkeys(("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"), 0.0)
    got = client.post("/rank", json={"inputs": {"table": row}, "task": "diabetes"}).json()
    assert got["interval"][0] <= got["value"] <= got["interval"][1]
    vector = client.post("/encode", json={"inputs": {"text": "vertical line"}, "side": "candidate"}).json()["vector"]
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-3)
    past = {"inputs": {"series": np.sin(np.arange(96.0)).tolist()}}
    told = client.post("/forecast", json=past).json()
    assert set(told["quantiles"]) == {"0.1", "0.5", "0.9"} and len(told["quantiles"]["0.5"]) == 24


def test_many_at_once_share_passes_and_each_gets_its_own_answer(client):
    def one(seed: int) -> dict:
        return client.post("/rank", files={"image": ("a.png", png(seed))}, data={"task": "digits"}).json()

    alone = [one(seed) for seed in range(12)]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(one, range(12)))
    for a, b in zip(alone, together, strict=True):
        assert dict(a["answers"]) == pytest.approx(dict(b["answers"]), abs=1e-5)
    text = client.get("/metrics").text
    assert 'generalist_requests_total{status="200",way="rank"}' in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"inputs": {"image": "/etc/passwd"}}, "a word is no value"),
        ({"inputs": {"image": {"path": "/etc/passwd", "bytes": None}}}, "a word is no value"),
        ({"inputs": {"image": [["/etc/passwd"]]}}, "a word is no value"),
        ({"inputs": {"sound": [1, 2]}}, "no modality 'sound'"),
        ({"inputs": {}}, "an object with an input by modality"),
        ({"inputs": [1]}, "an object with an input by modality"),
        ({"inputs": {"text": ""}, "candidates": ["a", "b"]}, "text"),
        ({"inputs": {"text": "a"}, "candidates": "ab"}, "list of names"),
        ({"inputs": {"text": "a"}, "candidates": ["a"]}, "at least two"),
        ({"inputs": {"text": "a"}, "task": "digitz"}, "digits"),
        ({"inputs": {"text": "a"}, "task": 3}, "task is a name"),
        ({"inputs": {"text": "a"}, "prompts": "birds"}, "no prompts 'birds'"),
        ({"image": [1]}, "unknown key 'image'"),
    ],
)
def test_a_mistake_is_one_line_and_no_file_of_this_machine_is_read(client, words, told):
    response = client.post("/rank", json=words)
    assert response.status_code == 422 and told in response.json()["error"] and "\n" not in response.json()["error"]


def test_a_word_that_is_a_path_stays_a_word(client, tmp_path):
    """A text is the text that was sent, also where a file has that name."""
    secret = tmp_path / "secret.txt"
    secret.write_text("vertical line")
    sent = client.post("/encode", json={"inputs": {"text": str(secret)}}).json()["vector"]
    read = client.post("/encode", json={"inputs": {"text": "vertical line"}}).json()["vector"]
    form = client.post("/encode", files={}, data={"text": str(secret)}).json()["vector"]
    assert sent == pytest.approx(form, abs=1e-5) and not np.allclose(sent, read, atol=1e-3)


def test_bodies_that_are_nothing(client, model_folder):
    assert client.post("/rank", content=b"{", headers={"content-type": "application/json"}).status_code == 400
    assert client.post("/rank", content=b"[1]", headers={"content-type": "application/json"}).status_code == 400
    assert client.post("/rank", content=b"x", headers={"content-type": "text/plain"}).status_code == 415
    deep = b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert client.post("/rank", content=deep, headers={"content-type": "application/json"}).status_code in (400, 422)
    broken = client.post("/rank", files={"image": ("a.png", b"no picture")}, data={"task": "digits"})
    assert broken.status_code == 422 and "\n" not in broken.json()["error"]
    with TestClient(app_of(model_folder, {}, body_mb=1)) as small:
        assert small.post("/rank", files={"image": ("a.png", bytes(2_000_000))}).status_code == 413


def test_ways_that_the_model_lacks(client):
    assert "detects nothing" in client.post("/detect", files={"image": ("a.png", png(0))}).json()["error"]
    assert (
        "no task of this model writes" in client.post("/describe", files={"image": ("a.png", png(0))}).json()["error"]
    )


def test_the_page_and_the_description(client):
    page = client.get("/").text
    assert "<title>generalist</title>" in page and "http://" not in page.replace("http://www.w3.org", "")
    described = client.get("/openapi.json").json()
    assert {"/rank", "/encode", "/forecast", "/detect", "/describe"} <= set(described["paths"])
    json.dumps(described)


def test_what_waits_behind_a_pass_is_answered_by_the_next_one():
    sizes, gate = [], threading.Event()
    batcher = Batcher(batch=64, told=lambda size, seconds: sizes.append(size))

    def answer(records):
        gate.wait(10)
        return [2 * record for record in records]

    first = batcher.ask("a", 1, answer)
    while not batcher.queue.empty():
        pass
    rest = [batcher.ask("a", n, answer) for n in range(2, 30)]
    gate.set()
    assert first.result(10) == 2 and [f.result(10) for f in rest] == [2 * n for n in range(2, 30)]
    assert sizes == [1, 28]
    batcher.close()


def test_a_pass_waits_for_those_that_are_being_read_and_not_for_those_that_dawdle():
    sizes = []
    batcher = Batcher(batch=64, told=lambda size, seconds: sizes.append(size))

    def answer(records):
        return records

    with batcher.arriving():
        first = batcher.ask("a", 1, answer)
        second = batcher.ask("a", 2, answer)  # within a moment of the first
        assert [first.result(5), second.result(5)] == [1, 2]
        assert batcher.ask("a", 3, answer).result(5) == 3  # though another is still on its way
    assert batcher.coming == 0 and sizes in ([2, 1], [1, 1, 1])
    begun = time.monotonic()
    assert batcher.ask("a", 4, answer).result(5) == 4 and time.monotonic() - begun < 5
    batcher.close()


def test_the_fault_of_one_is_nobody_elses():
    batcher = Batcher()

    def answer(records):
        return [1 // record for record in records]

    futures = [batcher.ask("a", n, answer) for n in (1, 0, 1)]
    assert [futures[0].result(5), futures[2].result(5)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        futures[1].result(5)
    batcher.close()


def test_too_many_are_turned_away():
    gate = threading.Event()
    batcher = Batcher(waiting=2)
    first = batcher.ask("a", 0, lambda records: [gate.wait(10) for _ in records])
    while not batcher.queue.empty():
        pass
    kept = [batcher.ask("a", n, lambda records: records) for n in (1, 2)]
    with pytest.raises(Full):
        batcher.ask("a", 3, lambda records: records)
    gate.set()
    assert [f.result(10) for f in (first, *kept)] == [True, 1, 2]
    batcher.close()


def test_a_text_that_begins_like_json_is_a_text_and_a_file_is_there_until_the_answer(client):
    draft = client.post("/encode", files={}, data={"text": "[draft] vertical line"})
    assert draft.status_code == 200 and np.linalg.norm(draft.json()["vector"]) == pytest.approx(1, abs=1e-3)
    past = np.sin(np.arange(96.0))
    buffer = io.BytesIO()
    np.save(buffer, past)
    sent = client.post("/forecast", files={"series": ("past.npy", buffer.getvalue())}).json()
    told = client.post("/forecast", json={"inputs": {"series": past.tolist()}}).json()
    assert sent["quantiles"]["0.5"] == pytest.approx(told["quantiles"]["0.5"], abs=1e-4)


@pytest.fixture(scope="module")
def indexed(model_folder, tmp_path_factory):
    """A client of the same model with an index of nine pictures, a broken one and words."""
    pytest.importorskip("faiss", reason="needs the extra serve")
    things = tmp_path_factory.mktemp("things")
    for seed in range(9):
        (things / f"{seed}.png").write_bytes(png(seed))
    (things / "words.txt").write_text("a seven")
    place = tmp_path_factory.mktemp("index")
    assert main(["index", str(model_folder), str(things), "--out", str(place), "--quiet"]) == 0
    with TestClient(app_of(model_folder, {}, index=place)) as found:
        yield found, things


def test_the_nearest_items_of_an_index_and_their_pictures(indexed):
    client, things = indexed
    assert client.get("/about").json()["indexed"] == 10
    found = client.post("/nearest", files={"image": ("a.png", png(4))}, data={"most": 3}).json()["nearest"]
    assert len(found) == 3 and found[0]["file"] == "4.png" and found[0]["cosine"] == pytest.approx(1, abs=1e-4)
    assert [one["cosine"] for one in found] == sorted((one["cosine"] for one in found), reverse=True)
    seen = client.get(f"/items/{found[0]['item']}")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(seen.content))), clients.picture(16, 16, 4))
    words = client.post("/nearest", json={"inputs": {"text": "a seven"}, "most": 10}).json()["nearest"]
    assert {one["file"] for one in words} == {path.name for path in things.iterdir()}
    number = next(one["item"] for one in words if one["file"] == "words.txt")
    assert client.get(f"/items/{number}").status_code == 404
    gone = next(one["item"] for one in words if one["file"] == "8.png")
    (things / "8.png").unlink()
    for one in (gone, 10, -1):  # a file that went meanwhile, numbers that there are not
        assert "no such item" in client.get(f"/items/{one}").json()["error"]


def test_an_index_that_is_not_there_or_asked_wrongly(client, indexed):
    assert "--index" in client.post("/nearest", files={"image": ("a.png", png(0))}).json()["error"]
    assert client.get("/items/0").status_code == 404
    for most in (0, 1001, "x", True, 1.5):
        told = indexed[0].post("/nearest", json={"inputs": {"text": "a"}, "most": most})
        assert told.status_code == 422 and "whole number" in told.json()["error"]
