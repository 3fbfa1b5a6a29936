"""A hub on this machine that speaks as much of the hub's protocol as pushing and loading a model folder take."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlparse

COMMIT = "0" * 39 + "1"


class Hub(BaseHTTPRequestHandler):
    """One repository a name; every file is uploaded inside its commit."""

    repositories: dict[str, dict[str, bytes]]

    def log_message(self, *words: Any) -> None:
        pass

    def answer(self, value: Any = b"", status: int = 200, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = urlparse(self.path).path
        found = re.fullmatch(r"/api/models/(.+)/(preupload|commit)/main", path)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(word for word in (asked.get("organization"), asked["name"]) if word)
            self.repositories.setdefault(name, {})
            self.answer({"url": f"http://{self.headers['Host']}/{name}"})
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif found and found[2] == "preupload":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif found:
            lines = [json.loads(line) for line in body.splitlines()]
            self.repositories[found[1]] |= {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            self.answer({"commitUrl": f"http://{self.headers['Host']}/{found[1]}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self.answer({"error": path}, 404)

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        file = re.fullmatch(r"/(.+/.+)/resolve/[^/]+/(.+)", path)
        tree = re.fullmatch(r"/api/models/(.+/.+)/tree/[^/]+/?(.*)", path)
        if file and file[2] in self.repositories.get(file[1], {}):
            content = self.repositories[file[1]][file[2]]
            self.answer(content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=COMMIT)
        elif tree and tree[1] in self.repositories:
            files = self.repositories[tree[1]]
            inside = [name for name in files if name.startswith(tree[2])]
            listed = [{"type": "file", "path": n, "size": len(files[n]), "oid": COMMIT} for n in inside]
            self.answer(listed) if listed else self.answer({"error": "none"}, 404, X_Error_Code="EntryNotFound")
        else:
            code = "EntryNotFound" if file and file[1] in self.repositories else "RepoNotFound"
            self.answer({"error": path}, 404, X_Error_Code=code, X_Repo_Commit=COMMIT)

    do_HEAD = do_GET


@contextmanager
def local_hub() -> Iterator[tuple[str, dict[str, dict[str, bytes]]]]:
    """Its address and what lies there: {repository: {path: content}}."""
    repositories: dict[str, dict[str, bytes]] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("LocalHub", (Hub,), {"repositories": repositories}))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", repositories
    finally:
        server.shutdown()
        server.server_close()
