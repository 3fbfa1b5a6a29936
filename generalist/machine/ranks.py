"""The processes of one run: how they find each other, agree, speak with one voice and part."""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
import json
import os
import random
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist

from generalist.data.base.errors import UserError
from generalist.machine.collectives import rank, world
from generalist.machine.launched import VARIABLES, launched_world

T = TypeVar("T")
CODE = ("generalist", "generalist.data", "generalist.tokenizers_mod", "generalist.tasks")
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_first() -> bool:
    """Whether this process writes the run's files; true in a run of one process, also before `join`."""
    return int(os.environ.get("RANK", "0")) == 0 if launched_world() > 1 else True


def join(device: torch.device, minutes: float = 10.0) -> None:
    """Make the process group; a run of one process gets a group of one.

    gloo carries what lies in CPU memory and, on CUDA, NCCL the rest, so that tensors of both kinds can be sent.

    minutes: how long a rank waits for another before it takes it for dead. UserError when the others are not there.
    """
    if dist.is_initialized():
        return
    if launched_world() == 1 and "MASTER_ADDR" not in os.environ:
        os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        os.environ["MASTER_PORT"] = str(free_port())
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        raise UserError(f"WORLD_SIZE is set but {', '.join(missing)} is not; start with torchrun or deepspeed")
    backend = "gloo"
    if device.type == "cuda":
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)  # where NCCL's own messages and barriers live
    try:
        dist.init_process_group(backend, timeout=timedelta(minutes=minutes), **meeting_place())
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(
            f"rank {os.environ['RANK']} cannot reach the others at {where} ({first_line(error)})"
        ) from error


def meeting_place() -> dict[str, Any]:
    """Where the ranks of one try meet: {} leaves it to torch.

    On one machine torchrun's agent may lend every try the same store, where the addresses of the dead still stand
    (torch 2.14, without a c10d rendezvous): each try gets a corner of its own. On several machines the agents count
    their tries apart, so a corner would part the ranks; `generalist.launchers.agent` sees to it there.
    """
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and os.environ.get("GROUP_WORLD_SIZE") == "1"
    if not shared:
        return {}
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    corner = dist.PrefixStore(f"try-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    return {"store": corner, "rank": int(os.environ["RANK"]), "world_size": launched_world()}


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def end(code: int) -> NoReturn:
    """End this process now, its output written and `atexit` done, but nothing taken apart.

    DeepSpeed keeps its process groups until the interpreter is gone: behind `leave` gloo's threads still run (measured,
    DeepSpeed 0.19: two loops and four workers). Objects that are taken apart below them when a peer has parted already
    may abort a rank whose work is done, and a launcher would take that for a failure.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def free_port() -> int:
    """A port that nobody uses, from below those that the kernel gives to connections: none can take it by chance."""
    try:
        lowest = int(EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        lowest = 32768
    chance = random.SystemRandom()  # whatever the run's seed
    for port in [*(chance.randrange(lowest // 2, lowest) for _ in range(100)), 0]:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return probe.getsockname()[1]
    raise UserError("no port is free on this machine")


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def barrier() -> None:
    if world() > 1:
        dist.barrier()


def gathered(value: T) -> list[T]:
    """The values of all ranks, on every rank; what pickles."""
    if world() == 1:
        return [value]
    found: list[Any] = [None] * world()
    dist.all_gather_object(found, value)
    return found


def on_first(do: Callable[[], T]) -> T:
    """`do()` on rank 0, its result on every rank; when it fails, it fails on every rank."""
    if world() == 1:
        return do()
    box: list[Any] = [None, None]
    failed: Exception | None = None
    if rank() == 0:
        try:
            box[0] = do()
        except Exception as error:
            failed, box[1] = error, first_line(error)
    dist.broadcast_object_list(box, src=0)
    if failed is not None:
        raise failed
    if box[1] is not None:
        raise UserError(box[1])
    return box[0]


def agree(recipe: dict[str, Any]) -> None:
    """All ranks run the same recipe with the same code and torch, or none starts. UserError names who differs."""
    if world() == 1:
        return
    text = json.dumps(recipe, sort_keys=True)
    own = {
        "recipe": hashlib.sha256(text.encode()).hexdigest()[:12],
        "code": code_hash(),
        "torch": torch.__version__,
    }
    everyone = gathered(own)
    for other, values in enumerate(everyone):
        for name, value in values.items():
            if value != everyone[0][name]:
                raise UserError(
                    f"rank {other} has another {name} than rank 0 ({value}, not {everyone[0][name]}); "
                    "start every node with the same command and the same installation"
                )


def code_hash() -> str:
    """A checksum of the source of every package that can change a run: 12 hex digits."""
    digest = hashlib.sha256()
    for package in CODE:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.submodule_search_locations is not None
        folder = Path(next(iter(spec.submodule_search_locations)))
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(folder).as_posix()}".encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
