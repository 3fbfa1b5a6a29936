"""The launcher's line for every node of a run: a pure function of what the user asked for.

torchrun's c10d rendezvous between machines whose names do not resolve to the address the others see needs three
things together, measured one by one: who hosts it (`is_host`), every node's own address (`--local-addr`) and the
interface of the collectives (GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME). `generalist.launchers.agent` is torchrun and
`generalist.launchers.deepspeed` DeepSpeed's launcher, which let a preempted run save.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from generalist.data.base.errors import UserError

LAUNCHERS = ("torchrun", "deepspeed")


@dataclass
class Launch:
    """nodes: addresses, the first hosts the rendezvous. processes: ranks a node. command: words after `generalist`.

    min_nodes: torchrun goes on with as few; restarts: how often a failed worker group is started again from the
    last checkpoint. interface: network interface of the collectives, "" leaves the choice to gloo and NCCL.
    """

    nodes: list[str]
    command: list[str]
    launcher: str = "torchrun"
    processes: int = 1
    port: int = 29500
    min_nodes: int = 0
    restarts: int = 10  # a second try may meet addresses of the first one (measured), so be generous
    interface: str = ""
    hostfile: str = ""
    name: str = "generalist"
    python: str = field(default="python")

    def __post_init__(self) -> None:
        if self.launcher not in LAUNCHERS:
            raise UserError(f"--launcher {self.launcher!r}; use one of {', '.join(LAUNCHERS)}")
        if not self.nodes or len(set(self.nodes)) != len(self.nodes):
            raise UserError(f"--nodes needs every node's address once, got {','.join(self.nodes) or 'none'}")
        if self.processes < 1 or not 0 <= self.min_nodes <= len(self.nodes):
            raise UserError("--processes must be at least 1, and --min-nodes at most the number of nodes")
        if self.launcher == "deepspeed" and not self.hostfile:
            raise UserError(
                "the DeepSpeed launcher reads the nodes from a file; give --hostfile FILE (it is printed too)"
            )

    def environment(self) -> dict[str, str]:
        names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
        return dict.fromkeys(names, self.interface) if self.interface else {}

    def words(self, node: int) -> list[str]:
        """The command to run on node number `node`."""
        if self.launcher == "deepspeed":
            return [
                *(self.python, "-m", "generalist.launchers.deepspeed", "--hostfile", self.hostfile),
                *("--num_nodes", str(len(self.nodes))),
                *("--num_gpus", str(self.processes), "--master_addr", self.nodes[0], "--master_port", str(self.port)),
                *("--no_local_rank", "--module", "generalist.cli", *self.command),
            ]
        count = len(self.nodes)
        nodes = str(count) if self.min_nodes in (0, count) else f"{self.min_nodes}:{count}"
        return [
            *(
                self.python,
                "-m",
                "generalist.launchers.agent",
                "--nnodes",
                nodes,
                "--nproc-per-node",
                str(self.processes),
            ),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"{self.nodes[0]}:{self.port}", "--rdzv-id", self.name),
            *("--rdzv-conf", f"is_host={int(node == 0)}", "--local-addr", self.nodes[node]),
            *("--max-restarts", str(self.restarts), "-m", "generalist.cli", *self.command),
        ]

    def line(self, node: int) -> str:
        """The same as one line of shell."""
        return " ".join([*(f"{k}={v}" for k, v in self.environment().items()), shlex.join(self.words(node))])

    def hosts(self) -> str:
        """The DeepSpeed launcher's hostfile."""
        return "".join(f"{node} slots={self.processes}\n" for node in self.nodes)

    def write_environment(self, path: Path) -> None:
        """Tell the DeepSpeed launcher, which starts every node by ssh, the variables; other lines of the file stay."""
        mine = self.environment()
        if not mine:
            return
        kept = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        lines = [line for line in kept if line.partition("=")[0] not in mine]
        path.write_text("".join(f"{line}\n" for line in [*lines, *(f"{k}={v}" for k, v in mine.items())]), "utf-8")

    def text(self) -> str:
        """What `generalist train --nodes` prints."""
        if self.launcher == "deepspeed":
            variables = "".join(f"{k}={v}\n" for k, v in self.environment().items())
            remote = (
                f"# variables of the other nodes, in .deepspeed_env of the working folder:\n{variables}"
                if variables
                else ""
            )
            here = f"# on {self.nodes[0]} only (it reaches the others by ssh):\n{self.line(0)}"
            return f"# {self.hostfile}:\n{self.hosts()}{remote}{here}"
        return "\n".join(f"# on {address}:\n{self.line(number)}" for number, address in enumerate(self.nodes))
