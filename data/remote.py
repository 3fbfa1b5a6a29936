"""Whole files from afar: http(s)://, s3:// (and S3-compatible), gs://, az://, and pipe: commands.

A file is written to a local path in pieces; what fails is tried again after 1, 2, 4 ... seconds. Credentials and
the endpoint of S3-compatible stores come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...).
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from data.errors import UserError

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


def fetch(place: str, to: Path, retries: int = 4, timeout: float = 60.0) -> None:
    """Bring one file here. UserError after `retries` further tries; at once when the file is not there."""
    scheme = place.split(":", 1)[0]
    for attempt in range(retries + 1):
        try:
            _fetch_once(scheme, place, to, timeout)
            return
        except UserError:
            raise
        except Exception as error:
            if attempt == retries:
                raise UserError(f"{place}: cannot be fetched, tried {retries + 1} times ({error})") from error
            time.sleep(2.0**attempt)


def _fetch_once(scheme: str, place: str, to: Path, timeout: float) -> None:
    if scheme in ("http", "https"):
        _http(place, to, timeout)
    elif scheme == "pipe":
        _pipe(place.partition(":")[2], to)
    elif scheme in STORES:
        _store(place, to)
    elif scheme == "file":
        shutil.copyfile(place.removeprefix("file://"), to)
    else:
        raise UserError(f"{place}: no way to fetch {scheme}:; use http(s), {', '.join(STORES)}, file or pipe:COMMAND")


def _http(place: str, to: Path, timeout: float) -> None:
    try:
        with urllib.request.urlopen(place, timeout=timeout) as response, to.open("wb") as file:
            shutil.copyfileobj(response, file, PIECE)
            expected = response.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        if error.code in (400, 401, 403, 404, 410):
            raise Absent(f"{place}: the server answers {error.code} {error.reason}") from error
        raise
    if expected is not None and to.stat().st_size != int(expected):
        raise OSError(f"{to.stat().st_size} of {expected} bytes came")


def _pipe(command: str, to: Path) -> None:
    """The output of a shell command: the user's own, from his recipe or the command line (`data.trust.check_place`)."""
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
        raise UserError(f"{place}: object stores need obstore; pip install 'generalist[remote]'") from error
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
