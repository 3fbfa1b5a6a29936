"""Requests a second of a served model: one client against many, on this machine, the same requests.

python -m scripts.bench_serve MODEL --image FILE --candidates a b c [--clients 32 --requests 400]

The clients are plain sockets that stay open, all in one loop that writes bytes made beforehand and counts answers, so
that what is measured is the server. `cpu_one` and `cpu_many` are milliseconds of the server's processor time a request:
their ratio says what the wall clock would on a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

from generalist.data.base.errors import UserError


def request_of(host: str, body: bytes, names: list[str]) -> bytes:
    """POST /rank of a picture among names, as a form."""
    mark = "generalist-bench"
    parts = [f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'.encode() + body]
    parts += [f'--{mark}\r\nContent-Disposition: form-data; name="candidates"\r\n\r\n{name}'.encode() for name in names]
    form = b"\r\n".join([*parts, f"--{mark}--\r\n".encode()])
    kind = f"multipart/form-data; boundary={mark}"
    head = f"POST /rank HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {len(form)}\r\n\r\n"
    return head.encode() + form


def whole(answer: bytes) -> bool:
    """Whether an answer is there to its end. UserError for one that is no 200."""
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise UserError(f"the server answered {answer[:300].decode(errors='replace')}")
    size = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return len(body) >= int(size.partition(b":")[2])


def asked(port: int, request: bytes, clients: int, requests: int) -> float:
    """Requests a second when `clients` ask at the same time, each its next when it was answered; `requests` in all."""
    left, done = requests, 0
    with selectors.DefaultSelector() as waiting:
        begun = time.perf_counter()
        for _ in range(min(clients, requests)):
            one = socket.create_connection(("127.0.0.1", port))
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            waiting.register(one, selectors.EVENT_READ, (one, bytearray()))
            one.sendall(request)
            left -= 1
        while done < requests:
            for key, _ in waiting.select():
                link, answer = key.data
                if not (part := link.recv(65536)):
                    raise UserError("the server closed a connection within an answer")
                answer.extend(part)
                if not whole(answer):
                    continue
                answer.clear()
                done += 1
                if left:
                    left -= 1
                    link.sendall(request)
        seconds = time.perf_counter() - begun
        for key in list(waiting.get_map().values()):
            key.data[0].close()
    return requests / seconds


def processor_time(process: int) -> float:
    """Seconds of processor time that a process has had (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def passes(port: int) -> tuple[float, float]:
    """Requests answered and passes made so far, of GET /metrics."""
    lines = [line.split() for line in httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()]
    found = {words[0]: float(words[1]) for words in lines if words[0] != "#"}
    return found["generalist_batch_size_sum"], found["generalist_batch_size_count"]


def rounds(port: int, process: int, request: bytes, args: argparse.Namespace) -> dict[str, float]:
    """The round of the median ratio."""
    asked(port, request, args.clients, 64)  # warm
    found = []
    for _ in range(args.rounds):
        began = processor_time(process)
        alone = asked(port, request, 1, args.requests // 4)
        between = processor_time(process)
        before = passes(port)
        many = asked(port, request, args.clients, args.requests)
        each = (between - began) / (args.requests // 4), (processor_time(process) - between) / args.requests
        requests, count = (now - then for now, then in zip(passes(port), before, strict=True))
        told = {"one": alone, "many": many, "cpu_one": 1e3 * each[0], "cpu_many": 1e3 * each[1]}
        found.append(told | {"requests a pass": requests / count})
    return sorted(found, key=lambda one: one["many"] / one["one"])[len(found) // 2]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model")
    options.add_argument("--image", type=Path, required=True)
    options.add_argument("--candidates", nargs="+", required=True)
    options.add_argument("--clients", type=int, default=32)
    options.add_argument("--requests", type=int, default=400)
    options.add_argument("--rounds", type=int, default=3)
    args = options.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "generalist.cli", "serve", args.model, "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(900):
            try:
                httpx.get(f"{address}/health").raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.2)
        request = request_of(f"127.0.0.1:{port}", args.image.read_bytes(), args.candidates)
        told = {"clients": args.clients, **rounds(port, server.pid, request, args)}
        told |= {"ratio": told["many"] / told["one"], "cpu_ratio": told["cpu_one"] / told["cpu_many"]}
        print(json.dumps({k: round(v, 2) for k, v in told.items()}))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
