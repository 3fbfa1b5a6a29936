"""The HTTP side: a form or JSON in, JSON out, one line for a mistake, numbers for Prometheus, and a page to try it.

POST /rank /encode /forecast /detect /describe /nearest    multipart/form-data (files and fields by modality) or JSON
GET  /about /health /metrics /                    what can be asked, whether it lives, measurements, the page
GET  /items/N                                     a small picture of an item of the served index
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from generalist.data.base.errors import UserError
from generalist.data.media import jsons
from generalist.serve.batching import Batcher, Full
from generalist.serve.inputs import SETTINGS, candidates_of, from_field, from_file, from_json
from generalist.serve.service import Service
from generalist.serve.thumbnail import thumbnail

PAGE = Path(__file__).with_name("page.html")
MB = 1_000_000
MOST = 1000  # items that one request may ask for
READERS = 4  # threads that decode; more would only take the interpreter's lock from each other and from the model
FIELDS: dict[str, Any] = {
    "candidates": {"type": "array", "items": {"type": "string"}, "description": "names to choose among"},
    "task": {"type": "string", "description": "a task of the model (GET /about)"},
    "prompts": {"type": "string", "description": "a set of prompts that is served"},
    "side": {"type": "string", "enum": ["input", "candidate"], "description": "of /encode"},
    "threshold": {"type": "number", "minimum": 0, "maximum": 1, "description": "of /detect"},
    "most": {"type": "integer", "minimum": 1, "maximum": MOST, "description": "of /nearest"},
}
BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {"inputs": {"type": "object", "description": "raw values by modality"}, **FIELDS},
            }
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "description": "files and fields by modality, beside the settings",
                "properties": FIELDS,
                "additionalProperties": {"type": "string", "format": "binary"},
            }
        },
    },
}
ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
ANSWERS: dict[int | str, dict[str, Any]] = {
    code: {"description": what, "content": {"application/json": {"schema": ERROR}}}
    for code, what in (
        (400, "a body that cannot be read"),
        (413, "a body over the limit"),
        (415, "neither a form nor JSON"),
        (422, "your mistake, in one line"),
        (503, "too many requests wait"),
    )
}


class Measured:
    """What GET /metrics tells."""

    def __init__(self, batcher: Callable[[], Batcher]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "generalist_requests", "Requests by way and status", ["way", "status"], registry=self.registry
        )
        self.seconds = Histogram("generalist_request_seconds", "Seconds of a request", ["way"], registry=self.registry)
        sizes = (1, 2, 4, 8, 16, 32, 64, 128)
        self.batch = Histogram("generalist_batch_size", "Requests a pass", buckets=sizes, registry=self.registry)
        self.model = Histogram("generalist_pass_seconds", "Seconds of a pass of the model", registry=self.registry)
        waiting = Gauge("generalist_waiting", "Requests that wait", registry=self.registry)
        waiting.set_function(lambda: batcher().queue.qsize())

    def passed(self, size: int, seconds: float) -> None:
        self.batch.observe(size)
        self.model.observe(seconds)


def app_of(
    folder: Path,
    prompts: dict[str, Path],
    batch: int = 64,
    waiting: int = 1024,
    body_mb: int = 64,
    precision: str = "fp32",
    index: Path | None = None,
) -> FastAPI:
    """The application of a model folder. prompts: {name: prompt file}; body_mb: what one request may send; precision:
    in which it answers; index: a folder of `generalist index`, whose items may then be searched and seen."""
    measured = Measured(lambda: batcher)
    batcher = Batcher(batch, waiting, measured.passed)
    service = Service(folder, prompts, batcher, precision, index)
    readers = ThreadPoolExecutor(READERS, "reader")
    app = FastAPI(
        title="generalist", description="One encoder, one likelihood, any modality.", docs_url=None, redoc_url=None
    )

    async def answered(
        way: str, request: Request, ask: Callable[[dict[str, Any], dict[str, Any]], Future[Any]]
    ) -> Response:
        begun, status, told = time.monotonic(), 200, {}
        try:
            with ExitStack() as kept:
                place = lru_cache(lambda: Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="generalist-"))))
                with batcher.arriving():
                    settings, read = await taken(request, service, place, body_mb * MB)
                    loop = asyncio.get_running_loop()
                    future = await loop.run_in_executor(readers, lambda: ask(read(), settings))
                told = await asyncio.wrap_future(future)  # its answer may look at the record's files again
        except UserError as error:
            status, told = 422, {"error": str(error)}
        except Full:
            status, told = 503, {"error": "too many requests wait; try again"}
        except HTTPException as error:
            status, told = error.status_code, {"error": str(error.detail)}
        measured.requests.labels(way, str(status)).inc()
        measured.seconds.labels(way).observe(time.monotonic() - begun)
        return JSONResponse(told, status)

    for way, ask in ways(service).items():
        app.post(f"/{way}", openapi_extra={"requestBody": BODY}, responses=ANSWERS, summary=ask.__doc__)(
            _endpoint(way, ask, answered)
        )

    @app.get("/about")
    def about() -> dict[str, Any]:
        return service.about()

    @app.get("/items/{number}", responses={404: {"description": "no such item, or none that can be seen"}})
    def item(number: int) -> Response:
        try:
            seen = thumbnail(service.look(number))
        except UserError as error:
            return JSONResponse({"error": str(error)}, 404)
        return Response(seen, media_type="image/png")

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(measured.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        return PAGE.read_text(encoding="utf-8")

    app.router.add_event_handler("shutdown", readers.shutdown)
    app.router.add_event_handler("shutdown", batcher.close)
    return app


def ways(service: Service) -> dict[str, Callable[[dict[str, Any], dict[str, Any]], Future[Any]]]:
    """{way: (raw values, settings) -> the future answer}"""

    def rank(raw: dict[str, Any], told: dict[str, Any]) -> Future[Any]:
        """Probabilities of candidates, or the task's own answers"""
        return service.rank(raw, told.get("candidates"), told.get("task"), told.get("prompts"))

    def encode(raw: dict[str, Any], told: dict[str, Any]) -> Future[Any]:
        """A unit vector of one record"""
        return service.encode(raw, told.get("side", "input"), told.get("prompts"))

    def forecast(raw: dict[str, Any], told: dict[str, Any]) -> Future[Any]:
        """What comes next, with quantiles"""
        return service.forecast(raw, told.get("task"), told.get("prompts"))

    def detect(raw: dict[str, Any], told: dict[str, Any]) -> Future[Any]:
        """Objects in a picture"""
        return service.detect(raw, told.get("candidates"), told.get("threshold", 0.3), told.get("task"))

    def describe(raw: dict[str, Any], told: dict[str, Any]) -> Future[Any]:
        """A caption"""
        return service.describe(raw, told.get("task"), told.get("prompts"))

    def nearest(raw: dict[str, Any], told: dict[str, Any]) -> Future[Any]:
        """The items of the served index that are most like it"""
        return service.nearest(raw, told.get("most", 8))

    return {
        "rank": rank,
        "encode": encode,
        "forecast": forecast,
        "detect": detect,
        "describe": describe,
        "nearest": nearest,
    }


def _endpoint(way: str, ask: Any, answered: Any) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await answered(way, request, ask)

    endpoint.__name__ = way
    return endpoint


async def taken(
    request: Request, service: Service, place: Callable[[], Path], most: int
) -> tuple[dict[str, Any], Callable[[], dict[str, Any]]]:
    """(settings, what reads the raw values): the body is received here, files decoded by who calls the second."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "multipart/form-data", "application/x-www-form-urlencoded"):
        raise HTTPException(415, "send application/json or multipart/form-data")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise HTTPException(413, f"the body is over {most // MB} MB (generalist serve --body-mb)")
    request._body = bytes(body)  # what request.form() reads
    built = service.processor.built
    if kind == "application/json":
        try:
            given = jsons.loads(bytes(body), "the body")
        except UserError as error:
            raise HTTPException(400, str(error)) from error
        if not isinstance(given, dict):
            raise HTTPException(400, 'send an object: {"inputs": {...}}')
        if unknown := set(given) - {"inputs", *SETTINGS}:
            raise UserError(f'unknown key {sorted(map(str, unknown))[0]!r}; inputs by modality stand in "inputs"')
        return settings_of(given), lambda: from_json(given.get("inputs"), built)
    fields, files, chosen = [], [], []
    try:
        async with request.form(max_files=64, max_fields=10_000) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    files.append((name, value.filename or "", await value.read()))
                elif name == "candidates":
                    chosen.append(value)
                else:
                    fields.append((name, value))
    except (AssertionError, ValueError) as error:
        raise HTTPException(400, f"a form that cannot be read ({error})") from error
    settings: dict[str, Any] = {name: value for name, value in fields if name in SETTINGS}
    settings["candidates"] = candidates_of(chosen)

    def read() -> dict[str, Any]:
        raw = {name: from_field(name, value, built) for name, value in fields if name not in SETTINGS}
        raw |= {name: from_file(name, filename, content, place, built) for name, filename, content in files}
        if not raw:
            raise UserError(f"no input given; send one by modality: {', '.join(m for m in built if m != 'summary')}")
        return raw

    return settings_of(settings), read


def settings_of(given: dict[str, Any]) -> dict[str, Any]:
    """The settings, checked: names are words, a threshold is a number."""
    out = {key: given[key] for key in SETTINGS if given.get(key) is not None}
    names = out.get("candidates")
    if names is not None and not (isinstance(names, list) and names and all(isinstance(n, str) for n in names)):
        raise UserError("candidates is a list of names in words")
    for key in ("task", "prompts", "side"):
        if not isinstance(out.get(key, ""), str):
            raise UserError(f"{key} is a name")
    if out.get("side", "input") not in ("input", "candidate"):
        raise UserError(f"side {out['side']!r}; input or candidate")
    if "threshold" in out:
        try:
            out["threshold"] = float(out["threshold"])
        except (TypeError, ValueError) as error:
            raise UserError(f"threshold {out['threshold']!r} is no number") from error
    if "most" in out:
        word = str(out["most"])
        if not word.isdecimal() or not 1 <= int(word[:10]) <= MOST:
            raise UserError(f"most {word!r} is no whole number from 1 to {MOST}")
        out["most"] = int(word)
    return out
