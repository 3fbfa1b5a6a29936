"""Small files that stand for much, servers that never end, names that are more than names: refused in time and in one
line, in a process that may not take much memory.
"""

import gzip
import hashlib
import http.server
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image as Pictures

from generalist.data.base.errors import UserError
from generalist.data.files import remote
from generalist.data.files.tar import TarIndex, scan, write_tar
from generalist.data.media.codec import decode
from generalist.data.sources.folder import Folder
from generalist.data.sources.local import load_columns
from generalist.data.sources.shards import Shards
from generalist.data.sources.tabular import read_table
from generalist.data.stream.source import Records
from generalist.data.tools.check import check
from generalist.hf.card import plain, results
from generalist.tasks.base.learn import learn_tables
from generalist.tasks.kinds.classify import Classify
from generalist.tokenizers_mod.geometry.graph import Graph
from generalist.tokenizers_mod.numbers.slot import Slot
from generalist.tokenizers_mod.text.bpe import train_bpe
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image

# Reads files as modalities in a process of bounded memory; prints of each what came of it, seconds and memory so far.
READ = """
import json, re, resource, sys, time
import torch, soundfile, pandas, scipy.signal
from PIL import Image
torch.set_num_threads(1)
Image.preinit()
from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.base.modalities import build_modalities
have = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (have + 1_400_000_000,) * 2)
for name, settings, path in json.loads(sys.argv[1]):
    modality, began = build_modalities({name: settings})[name], time.process_time()
    try:
        said = f"read {modality.span(modality.read(modality.from_command_line(path))).length}"
    except UserError as error:
        said = str(error)
    # getrusage's figure would hold the memory of the process that started this one
    peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
    print(json.dumps([said, time.process_time() - began, peak]))
"""


def flac(path):
    import soundfile

    with soundfile.SoundFile(path, "w", 16000, 2, format="FLAC") as file:
        for _ in range(9):
            file.write(np.zeros((1 << 20, 2), np.float32))


def lying_wav(rate):
    def write(path):
        import soundfile

        soundfile.write(path, np.zeros(40_000, np.float32), 8000, format="WAV", subtype="PCM_16")
        raw = bytearray(path.read_bytes())
        raw[24:28] = rate.to_bytes(4, "little")
        path.write_bytes(raw)

    return write


def png(width, height):
    return lambda path: Pictures.new("L", (width, height)).save(path, format="PNG", compress_level=1)


def npz(path):
    """An array of 3 GB, as its header says, of which a few MB hold 60."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (2**27, 3)})
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("points.npy", "w", force_zip64=True) as file,
    ):
        file.write(head.getvalue())
        for _ in range(6):
            file.write(bytes(10_000_000))


BOMBS = {
    "a column of pixels": ("image", {"size": 32, "patch": 8}, ".png", png(1, 99_000_000), "picture_side"),
    "a line": ("region", {"height": 32, "width": 32, "mode": "global"}, ".png", png(1, 16_000_000), "picture_side"),
    "a large picture": ("image", {"size": 32, "patch": 8, "channels": 3}, ".png", png(9990, 9990), "picture_mb"),
    "a large depth map": ("depth", {"size": 32, "patch": 8}, ".png", png(9990, 9990), "picture_mb"),
    "a long silence": ("audio", {}, ".flac", flac, "sound_mb"),
    "its middle": ("audio", {"max_seconds": 1.0}, ".flac", flac, "read 108"),
    "2 GHz": ("audio", {}, ".wav", lying_wav(2_000_000_000), "sampling rate"),
    "1 Hz": ("audio", {}, ".wav", lying_wav(1), "sampling rate"),
    "an odd rate": ("audio", {"max_seconds": 1.0}, ".wav", lying_wav(999_983), "read"),
    "zeros in a zip": ("points", {}, ".npz", npz, "array_mb"),
    "wide": ("table", {}, ".csv", lambda p: p.write_text(",".join(f"c{i}" for i in range(10**6)) + "\n1"), "columns"),
    "a long cell": ("table", {}, ".csv", lambda p: p.write_text("a,b\n" + "x" * 10**8 + ",1\n"), "cell_mb"),
    "deep": ("table", {}, ".json", lambda p: p.write_text('{"a":' * 20_000 + "1" + "}" * 20_000), "json_depth"),
}


def test_small_files_take_little_memory_and_time(tmp_path):
    asked = []
    for number, (name, settings, ending, write, _) in enumerate(BOMBS.values()):
        path = tmp_path / f"bomb{number}{ending}"
        write(path)
        asked.append((name, settings, str(path)))
    words = [sys.executable, "-c", READ, json.dumps(asked)]
    # of sounds and arrays smaller ones do, which are written sooner
    changed = {"PYTHONPATH": str(ROOT), "GENERALIST_LIMITS": "sound_mb=32,array_mb=50"}
    done = subprocess.run(words, cwd=ROOT, env=os.environ | changed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # ... and none of them has ended the process
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for (said, seconds, peak), (bomb, (*_, says)) in zip(found, BOMBS.items(), strict=True):
        assert says in said, (bomb, said)
        assert seconds < 5, (bomb, seconds)
        assert peak < 2_000_000, (bomb, peak)  # kB


def test_a_large_jpeg_is_decoded_smaller_where_nothing_is_told_in_its_pixels(tmp_path, monkeypatch):
    pixels = np.zeros((1200, 1600, 3), np.uint8)
    pixels[:600] = 255
    Pictures.fromarray(pixels).save(tmp_path / "large.jpg")
    monkeypatch.setenv("GENERALIST_LIMITS", "picture_mb=1")
    value = Image(size=32, patch=8, channels=3).read(tmp_path / "large.jpg")
    assert value.shape == (3, 300, 400) and value[:, :140].min() > 0.95 and value[:, 160:].max() < 0.05
    from generalist.tokenizers_mod.regions.region import Region

    with pytest.raises(UserError, match=r"large\.jpg.*1600 x 1200 pixels are 8 MB decoded, over the limit of 1 MB"):
        Region(height=32, width=32, mode="global").read(tmp_path / "large.jpg")


def test_of_a_long_text_no_more_is_tokenised_than_is_read():
    text = Text(tokenizer=train_bpe(["a few words to learn from"], 270).to_str(), max_length=24, positions=24)
    long = "some words é " * 800_000
    began = time.process_time()
    span = text.span(text.read(long))
    assert time.process_time() - began < 2
    assert span.data["ids"].tolist() == text.span(text.read(long[:5_000])).data["ids"].tolist()
    assert text.span(text.read(" " * 500_000 + "word")).length == text.span(text.read("word")).length


def test_a_horizon_and_a_molecule_have_limits():
    with pytest.raises(UserError, match="a horizon of 748732828 steps, over the limit of 65,536"):
        Slot().read(748732828)
    with pytest.raises(UserError, match="20,000 characters, over the limit of 10,000"):
        Graph().read("C" * 20_000)


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
@pytest.mark.parametrize("read", [read_table, lambda path: load_columns(str(path))])
def test_deep_json_lines_are_refused_before_a_parser_sees_them(ending, read, tmp_path):
    raw = b'{"b":1}\n' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"\n"
    path = tmp_path / f"deep{ending}"
    path.write_bytes(gzip.compress(raw) if ending.endswith("gz") else raw)
    with pytest.raises(UserError, match=r"deep\.jsonl.*JSON nested 20,000 deep, over the limit of 100"):
        read(path)


def test_wide_tables_and_long_cells_are_refused(tmp_path):
    for name, text, says in (
        ("wide.csv", ",".join("c" * 10**6) + "\n", "20,000"),
        ("long.csv", "a,b\n1," + "x" * 11_000_000 + "\n", "cell_mb"),
        ("lines.csv", 'a,b\n1,"' + "x\n" * 6_000_000 + '"\n', "cell_mb"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=f"{name}.*{says}"):
            read_table(tmp_path / name)


def test_damaged_members_are_their_samples_fault():
    head = np.lib.format.magic(1, 0)
    for name, raw in {
        "npy": head + b"\x76\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000000000,), }".ljust(118),
        "x.npy": head + b"\x76\x00" + (b"(" * 118),
        "json": b"[" * 100_000,
        "png": b"\x89PNG\r\n\x1a\n" + bytes(40),
        "cls": b"9" * 5000,
        "txt": b"\xff",
    }.items():
        with pytest.raises(UserError, match="member") as caught:
            value = decode(name, raw)
            value.load()
        assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


def test_a_member_that_claims_745_gib_is_lost_and_named(tmp_path):
    write_tar(tmp_path / "a.tar", [("one", {"txt": b"1"}), ("two", {"txt": b"2"})])
    index = scan(tmp_path / "a.tar")
    index.size[1, 0] = 745 * 2**30
    index.save(tmp_path / "a.tar.idx")
    records = Shards(splits={"train": str(tmp_path / "a.tar")}, cache=str(tmp_path / "cache")).open("train")
    assert records[0]["txt"] == "1"
    with pytest.raises(UserError, match="sample two: the shard ends within it"):
        records[1]
    assert check(records, "train")[0].problems["broken"]


def test_names_of_members_are_one_line(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("one\n../two.txt", "a\x1b[31m.txt", "caf\udce9.txt", "plain.txt"):
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
    scan(tmp_path / "a.tar").save(tmp_path / "a.tar.idx")
    index = TarIndex.load(tmp_path / "a.tar.idx")
    assert index.keys == ["one\\n../two", "a\\x1b[31m", "caf\\udce9", "plain"]


def test_a_shard_is_checked_against_its_index_when_it_is_first_opened(tmp_path):
    folder = tmp_path / "set/train"
    folder.mkdir(parents=True)
    write_tar(folder / "000.tar", [(f"k{i}", {"txt": b"text %d" % i}) for i in range(5)])
    raw = (folder / "000.tar").read_bytes()
    one = {"url": "000.tar", "nsamples": 5, "filesize": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    (folder / "index.json").write_text(json.dumps({"shardlist": [one]}))
    source = Shards(str(tmp_path / "set"), cache=str(tmp_path / "cache"))
    assert [source.open("train")[i]["txt"] for i in range(5)] == [f"text {i}" for i in range(5)]
    at = raw.index(b"text 3")
    (folder / "000.tar").write_bytes(raw[:at] + b"T" + raw[at + 1 :])
    for number in (0, 3):  # the others of the shard are not to be trusted either
        with pytest.raises(UserError, match=r"000\.tar: its checksum is not that of the index"):
            source.open("train")[number]


def test_a_folder_is_walked_once_and_what_is_no_file_is_named(tmp_path):
    for name in ("cat/1.png", "dog/2.png"):
        (tmp_path / name).parent.mkdir()
        Pictures.new("L", (4, 4)).save(tmp_path / name)
    (tmp_path / "cat/again").symlink_to(tmp_path)
    (tmp_path / "dog/round").symlink_to("round")
    os.mkfifo(tmp_path / "cat/3.png")
    (tmp_path / "cat/4.png").symlink_to("/dev/zero")
    line = socket.socket(socket.AF_UNIX)
    os.chdir(tmp_path)
    try:
        line.bind("dog/5.png")
    finally:
        os.chdir(ROOT)
        line.close()
    records = Folder(str(tmp_path), val=0.0, test=0.0).open("train")
    assert [records[i]["id"] for i in range(len(records))] == ["cat/1.png", "dog/2.png"]
    told = " ".join(records.info["notes"])
    assert all(name in told for name in ("cat/3.png", "cat/4.png", "dog/5.png"))
    with pytest.raises(UserError, match=r"3\.png: is no ordinary file"):
        Image().read(tmp_path / "cat/3.png")


class Slow(http.server.BaseHTTPRequestHandler):
    """/body drips its body, /head its head, /cut ends within a body of unknown length, /whole does not."""

    raw = b""

    def log_message(self, *words):
        pass

    def do_GET(self):
        try:
            if self.path == "/head":
                while True:
                    self.wfile.write(b"X")
                    time.sleep(0.05)
            self.send_response(200)
            self.end_headers()
            if self.path == "/body":
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.05)
            self.wfile.write(self.raw[:700] if self.path == "/cut.tar" else self.raw)
        except OSError:
            pass


@pytest.fixture()
def slow(tmp_path):
    write_tar(tmp_path / "x.tar", [("one", {"txt": b"1"})])
    Slow.raw = (tmp_path / "x.tar").read_bytes()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_server_that_drips_is_left_in_time(part, slow, tmp_path):
    began = time.monotonic()
    with pytest.raises(UserError, match="ask another server"):
        remote.fetch(f"{slow}/{part}", tmp_path / "to", timeout=1.0)
    assert time.monotonic() - began < 10


def test_a_file_of_unknown_length_must_end_as_a_tar_does(slow, tmp_path):
    assert not remote.fetch(f"{slow}/whole.tar", tmp_path / "to", retries=0)

    def read(name):
        return Shards(splits={"train": f"{slow}/{name}"}, cache=str(tmp_path / "cache"), retries=0).open("train")[0]

    assert read("whole.tar")["txt"] == "1"
    with pytest.raises(UserError, match="not a whole tar archive"):
        read("cut.tar")


def test_names_put_no_html_and_no_lines_into_a_card():
    name = "a<img src=x onerror=alert(1)>\n\n# [x](http://y) | `b` *c* _d_ snake_case \x1b[0m"
    line = dict.fromkeys(("value", "chance", "baseline"), 0.5) | {
        "metric": name, "baseline_name": name, "higher_is_better": True, "synthetic": False, "n_test": 3,
    }  # fmt: skip
    text = results({"tasks": {name: line}, "parameters": 1, "steps": 1})
    assert len(text.splitlines()) == 5 and "<" not in text and "\x1b" not in text
    row = text.splitlines()[2].replace("\\|", "")
    assert row.count("|") == 8
    assert plain("snake_case _x_ *y*") == r"snake_case \_x\_ \*y\*"


def test_one_molecule_that_is_none_does_not_stop_what_is_learnt():
    rows = [{"id": f"m{i}", "smiles": "C" * (i + 1) if i != 17 else "C(("} for i in range(40)]
    records, graph = Records(rows), Graph()
    task = Classify(name="mol", source=Folder("nowhere"), inputs={"graph": "smiles"})
    learn_tables(task, {"graph": graph}, records)
    assert graph.learnt and graph.read("CCO").code.shape == (3, 7)
    (note,) = records.info["notes"]
    assert note.startswith(
        "graph is learnt without 1 of 40 records that cannot be read, such as record m17: graph: 'C(('"
    )
