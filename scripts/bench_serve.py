"""Requests a second of a served model: one client against many, on this machine, the same requests.

python -m scripts.bench_serve MODEL --image FILE --candidates a b c [--clients 32 --requests 400]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx


async def asked(address: str, body: bytes, names: list[str], clients: int, requests: int) -> float:
    """Requests a second when `clients` ask at the same time, `requests` in all."""
    left = iter(range(requests))
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client:

        async def one() -> None:
            for _ in left:
                files = {"image": ("a.png", body)}
                (await client.post(f"{address}/rank", files=files, data={"candidates": names})).raise_for_status()

        begun = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(clients)))
        return requests / (time.perf_counter() - begun)


def measured(text: str, name: str) -> float:
    """A number of GET /metrics."""
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", type=Path)
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
    command = [sys.executable, "-m", "generalist.cli", "serve", str(args.model), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                httpx.get(f"{address}/health").raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.2)
        body, found = args.image.read_bytes(), []
        asyncio.run(asked(address, body, args.candidates, args.clients, 64))  # warm
        for _ in range(args.rounds):
            alone = asyncio.run(asked(address, body, args.candidates, 1, args.requests // 4))
            found.append((alone, asyncio.run(asked(address, body, args.candidates, args.clients, args.requests))))
        text = httpx.get(f"{address}/metrics").text
        total, count = (measured(text, f"generalist_batch_size_{what}") for what in ("sum", "count"))
        alone, many = sorted(found, key=lambda pair: pair[1] / pair[0])[len(found) // 2]
        told = {
            "clients": args.clients,
            "one": alone,
            "many": many,
            "ratio": many / alone,
            "requests a pass": total / count,
        }
        print(json.dumps({k: round(v, 2) for k, v in told.items()}))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
