"""Whole files from afar: http(s)://, s3:// (and S3-compatible), gs://, az://, and pipe: commands.

A file is written to a local path in pieces; what fails is tried again after 1, 2, 4 ... seconds. Credentials and
the endpoint of S3-compatible stores come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...).
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.data.base.limits import MB, limits, over

PIECE = 1 << 20
STORES = ("s3", "gs", "az")


def is_remote(place: str) -> bool:
    return place.startswith("pipe:") or "://" in place


def join(base: str, name: str) -> str:
    """A file within a remote or local folder; names that are addresses themselves stay, and all do without a folder."""
    if not base or is_remote(name) or Path(name).is_absolute():
        return name
    return f"{base.rstrip('/')}/{name}"


class Absent(UserError):
    """The file is not there, so that trying again is no use."""


class TooSlow(UserError):
    """The server does not send in time; asking it again would take as long."""


def fetch(place: str, to: Path, retries: int = 4, timeout: float = 60.0) -> bool:
    """Bring one file here; whether its sender said how long it is, so that it is known to be whole.

    UserError after `retries` further tries; at once when the file is not there, or comes too slowly: a server has
    `timeout` seconds and the time that its bytes take at `http_kb_s` (`generalist.data.base.limits`).
    """
    scheme = place.split(":", 1)[0]
    for attempt in range(retries + 1):
        try:
            return _fetch_once(scheme, place, to, timeout)
        except UserError:
            raise
        except Exception as error:
            if attempt == retries:
                raise UserError(f"{place}: cannot be fetched, tried {retries + 1} times ({error})") from error
            time.sleep(2.0**attempt)
    raise AssertionError("the last try returns or raises")


def _fetch_once(scheme: str, place: str, to: Path, timeout: float) -> bool:
    if scheme in ("http", "https"):
        return _http(place, to, timeout)
    if scheme == "pipe":
        _pipe(place.partition(":")[2], to)
    elif scheme in STORES:
        _store(place, to)
    elif scheme == "file":
        shutil.copyfile(place.removeprefix("file://"), to)
    else:
        raise UserError(f"{place}: no way to fetch {scheme}:; use http(s), {', '.join(STORES)}, file or pipe:COMMAND")
    return True


def _http(place: str, to: Path, timeout: float) -> bool:
    began = time.monotonic()
    try:
        with _answer(place, timeout) as response, to.open("wb") as file:
            expected = response.headers.get("Content-Length")
            chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
            came = 0
            while piece := response.read1(PIECE):  # what is there: `read` would wait for a whole piece
                file.write(piece)
                came += len(piece)
                if time.monotonic() - began > timeout + came / (1000 * limits().http_kb_s):
                    raise TooSlow(f"{place}: {came:,} bytes in {time.monotonic() - began:.0f} s; ask another server")
                if came > limits().download_gb * 1000 * MB:
                    raise over(place, "download_gb", f"{came:,} bytes and more")
    except urllib.error.HTTPError as error:
        if error.code in (400, 401, 403, 404, 410):
            raise Absent(f"{place}: the server answers {error.code} {error.reason}") from error
        raise
    if expected is not None and came != int(expected):
        raise OSError(f"{came} of {expected} bytes came")
    return expected is not None or chunked


def _answer(place: str, timeout: float) -> Any:
    """The open answer to a request. TooSlow where its head is not there in time, however many bytes of it came."""
    lines: list[socket.socket] = []

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            lines.append(self.sock)

    class Safe(http.client.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            lines.append(self.sock)

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(Plain, request)

    class SafeHandler(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(Safe, request)

    late = threading.Event()

    def hang_up() -> None:
        late.set()
        for line in lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout, hang_up)
    timer.daemon = True
    timer.start()
    try:
        return urllib.request.build_opener(PlainHandler, SafeHandler).open(place, timeout=timeout)
    except urllib.error.HTTPError:
        raise
    except Exception as error:
        if late.is_set():
            raise TooSlow(f"{place}: no answer in {timeout:g} s; ask another server") from error
        raise
    finally:
        timer.cancel()


def _pipe(command: str, to: Path) -> None:
    """The output of a shell command: the user's own, from his recipe or the command line
    (`generalist.data.base.trust.check_place`)."""
    with to.open("wb") as file:
        done = subprocess.run(["/bin/sh", "-c", command], stdout=file, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise OSError(f"exit code {done.returncode}: {words[-1] if words else 'no message'}")


def _store(place: str, to: Path) -> None:
    try:
        import obstore
        from obstore.store import from_url
    except ImportError as error:
        raise UserError(f"{place}: object stores need obstore; pip install 'generalist-encoder[remote]'") from error
    base, _, key = place.rpartition("/")
    options: dict[str, Any] = {}
    import os

    if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        options["client_options"] = {"allow_http": True}
    try:
        result = obstore.get(from_url(base, **options), key)
        with to.open("wb") as file:
            for piece in result.stream(min_chunk_size=PIECE):
                file.write(piece)
    except FileNotFoundError as error:
        raise Absent(f"{place}: not in the store") from error


def checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
