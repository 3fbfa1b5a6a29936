"""The page on many nodes (generalist/launchers/README.md), word for word, and every file of scripts/launch/, executed.

Two network namespaces stand for the two nodes, a folder for the disk that both see, and small scripts for the programs
that are not here (pdsh, ssh, scontrol, srun), which reach the other node by entering its namespace.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from nodes import (
    ADDRESSES,
    RECIPE,
    ROOT,
    Node,
    equal,
    finished,
    real_programs,
    same_weights,
    steps_done,
    two_nodes,
    wait_for,
)

from generalist.machine.command_line import Launch
from generalist.machine.ranks import free_port
from generalist.train.checkpoints.checkpoint import checkpoints, latest
from generalist.train.engines.base import read_meta

pytestmark = pytest.mark.timeout(900)
LAUNCH = ROOT / "scripts" / "launch"
SHORT = ("steps=6", "checkpoint.every=3")


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)


def remote_shell(folder: Path, nodes: list[Node]) -> None:
    """`pdsh -S -f N -w HOSTS COMMAND` and `ssh HOST COMMAND`: the command in the namespaces of the hosts.

    %n is the host's number, as in pdsh; the code is the largest (-S). Its `pkill -f` would meet other launches here.
    """
    table = "".join(f"    {node.address}) echo {node.namespace} ;;\n" for node in nodes)
    script(folder / "namespace", f'case "$1" in\n{table}esac\n')
    script(folder / "ssh", "exit 0\n")
    script(
        folder / "pdsh",
        f"""
while [ "$1" != -w ]; do shift; done
hosts=$(echo "$2" | tr , ' '); shift 2
case "$*" in *pkill*) exit 0 ;; esac
number=0; pids=; worst=0
for host in $hosts; do
    command=$(echo "$*" | sed "s/%n/$number/g")
    ip netns exec "$({folder}/namespace "$host")" env -u GLOO_SOCKET_IFNAME sh -c "$command" &
    pids="$pids $!"; number=$((number + 1))
done
for pid in $pids; do wait "$pid" || worst=$?; done
exit "$worst"
""",
    )


def trained_by(out: Path, world: int, steps: int = 6) -> None:
    step, folder = latest(out)
    meta = read_meta(folder)
    assert (step, meta["engine"], meta["world"]) == (steps, "deepspeed", world)
    assert (out / "metrics.json").is_file() and (out / "report.html").is_file()


# --- the page ---


def page() -> list[tuple[str, str]]:
    """(where, command) of the page's block, in order; where is an address, "either" or "both nodes"."""
    text = (ROOT / "generalist" / "launchers" / "README.md").read_text(encoding="utf-8")
    block = text.partition("    # on both nodes\n")
    where, found = "both nodes", []
    for line in block[2].replace("\\\n", " ").split("\n"):
        if not line.startswith("    "):
            break
        if line.strip().startswith("#"):
            where = re.match(r"\s*# on ([\w.]+)", line).group(1)
        else:
            found.append((where, line.strip()))
    return found


def test_the_page_on_many_nodes_is_followed_word_for_word_in_two_network_namespaces(tmp_path, tools):
    commands = page()
    assert commands[0] == ("both nodes", "cd /shared") and len(commands) == 6
    shared = tmp_path / "shared"  # stands for /shared
    shared.mkdir()
    # any recipe: the tests' smallest
    (shared / "my_recipe.py").write_text(
        RECIPE.read_text().replace("steps=12", "steps=6").replace("every=4", "every=3")
    )
    path, logs = tmp_path / "bin", tmp_path / "logs"
    logs.mkdir()
    with two_nodes(shared, tools) as nodes:
        remote_shell(path, nodes)
        by_address = dict(zip(ADDRESSES, nodes, strict=True))
        running = []
        for number, (where, command) in enumerate(commands[1:]):
            log = logs / f"{number}.txt"
            node = by_address.get(where, nodes[0])
            process = node.start(command, log, PATH=f"{path}:{node.environment()['PATH']}")
            if " --run 0" in command:  # goes on until the other node's command has ended, too
                running.append((process, log))
                continue
            for one, its in [*running, (process, log)]:
                finished(one, its)
            running.clear()
    printed = [line for line in (logs / "0.txt").read_text().splitlines() if "generalist.launchers.agent" in line]
    assert len(printed) == 2 and all("GLOO_SOCKET_IFNAME=eth0" in line for line in printed)
    assert "2 processes" in (logs / "3.txt").read_text()
    trained_by(shared / "runs" / "two", 2)
    trained_by(shared / "runs" / "three", 2)
    assert equal(shared / "runs" / "two", shared / "runs" / "three")  # whichever launcher
    assert (shared / "hosts").read_text() == "10.0.0.1 slots=1\n10.0.0.2 slots=1\n"


# --- preemption under DeepSpeed's launcher ---


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_sigterm_to_the_deepspeed_launcher_saves_ends_with_0_and_a_later_start_changes_no_bit(tmp_path, tools, count):
    """Two ranks, on one node (no pdsh in between) and on two (SIGTERM reaches the first node alone)."""
    keys = ("train", str(RECIPE), "steps=60", "checkpoint.every=25", "model.drop_path=0.2", "--auto-resume", "--quiet")

    def line(nodes: list[Node], out: str) -> Launch:
        made = Launch(
            [node.address for node in nodes], [*keys, "--out", out], "deepspeed", 2 // count, free_port(),
            interface="eth0" if count > 1 else "", hostfile="hosts",
        )  # fmt: skip
        (tmp_path / "hosts").write_text(made.hosts())
        made.write_environment(tmp_path / ".deepspeed_env")
        return made

    with two_nodes(tmp_path, tools) if count > 1 else alone(tmp_path, tools) as nodes:
        remote_shell(tmp_path / "bin", nodes)
        path, log = f"{tmp_path / 'bin'}:{nodes[0].environment()['PATH']}", tmp_path / "log.txt"
        calm, rough = line(nodes, "calm"), line(nodes, "rough")
        finished(nodes[0].start(calm.words(0), log, PATH=path, **calm.environment()), log)
        launcher = nodes[0].start(rough.words(0), log, PATH=path, **rough.environment())
        assert wait_for(lambda: steps_done(tmp_path / "rough") > 0, launcher), log.read_text()[-3000:]
        asked = time.monotonic()
        launcher.terminate()
        finished(launcher, log)
        assert time.monotonic() - asked < 60
        assert "saved; go on with: generalist train" in log.read_text()
        ((step, _),) = checkpoints(tmp_path / "rough")
        assert 0 < step < 60 and not (tmp_path / "rough" / "stop").exists()
        finished(nodes[0].start(rough.words(0), log, PATH=path, **rough.environment()), log)
    same_weights(tmp_path / "calm", tmp_path / "rough", 60)


@contextmanager
def alone(folder: Path, programs: Path) -> Iterator[list[Node]]:
    node = Node(folder, programs)
    try:
        yield [node]
    finally:
        node.end()


def test_a_launcher_that_starts_no_training_says_so(capsys):
    from generalist.launchers.deepspeed import folder_of, main

    assert main(["--num_gpus", "2", "train.py"]) == 2
    assert "generalist.cli train RECIPE" in capsys.readouterr().err
    words = ["--num_gpus", "2", "--module", "generalist.cli", "train", str(RECIPE), "steps=3"]
    assert folder_of(words) == Path("runs/tiny")
    assert folder_of([*words, "--quiet", "name=other"]) == Path("runs/other")
    assert folder_of([*words, "--out", "there"]) == Path("there")


# --- the files ---


def test_the_slurm_file_runs_on_two_nodes(tmp_path, tools):
    """scontrol and srun as SLURM answers them for a job of two nodes with one task each."""
    file = LAUNCH / "slurm.sbatch"
    assert subprocess.run(["bash", "-n", file], check=False).returncode == 0
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", file.read_text(), flags=re.M))
    assert options["signal"] == "TERM@300" and "requeue" in options and options["ntasks-per-node"] == "1"
    path = tmp_path / "bin"
    with two_nodes(tmp_path, tools) as nodes:
        script(
            path / "scontrol",
            f'[ "$*" = "show hostnames nodes[1-2]" ] && printf "{ADDRESSES[0]}\\n{ADDRESSES[1]}\\n"\n',
        )
        each = "".join(
            f'SLURM_NODEID={i} SLURMD_NODENAME={node.address} ip netns exec {node.namespace} "$@" & pids="$pids $!"\n'
            for i, node in enumerate(nodes)
        )
        script(
            path / "srun",
            f'[ "$1" = --kill-on-bad-exit=1 ] || exit 9\nshift; pids=; worst=0\n{each}'
            'for pid in $pids; do wait "$pid" || worst=$?; done\nexit "$worst"\n',
        )
        job = {"SLURM_JOB_NODELIST": "nodes[1-2]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "77"}
        head = Node(tmp_path, tools)
        variables = {**job, "PROCESSES": "1", "INTERFACE": "eth0", "PATH": f"{path}:{head.environment()['PATH']}"}
        log = tmp_path / "out.txt"
        try:
            finished(head.start(["sh", str(file), str(RECIPE), *SHORT], log, **variables), log)
        finally:
            head.end()
    trained_by(tmp_path / "runs" / "tiny", 2)


def test_the_kubernetes_file_is_a_pytorchjob_whose_command_trains(tmp_path, tools):
    job = yaml.safe_load((LAUNCH / "pytorchjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    # the fields of the training operator's PyTorchJobSpec (kubeflow.org/v1) and of the pod it starts
    spec = job["spec"]
    assert set(spec) <= {"runPolicy", "elasticPolicy", "pytorchReplicaSpecs", "nprocPerNode"}
    known = {"minReplicas", "maxReplicas", "rdzvBackend", "rdzvPort", "rdzvHost", "rdzvId", "rdzvConf", "maxRestarts"}
    assert set(spec["elasticPolicy"]) <= known | {"standalone", "nProcPerNode", "metrics"}
    ((role, worker),) = spec["pytorchReplicaSpecs"].items()
    assert role in ("Master", "Worker") and set(worker) <= {"replicas", "restartPolicy", "template"}
    assert worker["restartPolicy"] in ("Always", "OnFailure", "Never", "ExitCode")
    assert spec["elasticPolicy"]["minReplicas"] <= worker["replicas"] == spec["elasticPolicy"]["maxReplicas"]
    pod = worker["template"]["spec"]
    from generalist.launchers.agent import GRACE

    assert pod["terminationGracePeriodSeconds"] >= GRACE
    (container,) = pod["containers"]
    assert container["name"] == "pytorch"  # the operator looks for this name
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    # as the operator starts the only worker of a job: its variables say how many nodes and where they meet
    variables = {
        "PET_NNODES": "1:1",
        "PET_NPROC_PER_NODE": "2",
        "PET_RDZV_BACKEND": spec["elasticPolicy"]["rdzvBackend"],
        "PET_RDZV_ENDPOINT": f"localhost:{free_port()}",
        "PET_RDZV_ID": "generalist",
        "PET_MAX_RESTARTS": str(spec["elasticPolicy"]["maxRestarts"]),
    }
    command = [str(RECIPE) if w == "demo" else w.replace("/shared/", f"{tmp_path}/") for w in container["command"]]
    node, log = Node(tmp_path, tools), tmp_path / "out.txt"
    try:
        finished(node.start([*command, *SHORT], log, **variables), log)
    finally:
        node.end()
    trained_by(tmp_path / "runs" / "demo", 2)


def test_accelerate_launch_starts_the_same_training(tmp_path, tools):
    node, log = Node(tmp_path, tools), tmp_path / "out.txt"
    words = ["accelerate", "launch", "--use_deepspeed", "--num_processes", "2", "--num_machines", "1"]
    words += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(free_port())]
    words += ["-m", "generalist.cli", "train", str(RECIPE), *SHORT, "--out", "run", "--quiet"]
    try:
        finished(node.start(words, log), log)
    finally:
        node.end()
    trained_by(tmp_path / "run", 2)


def test_two_ranks_with_different_recipes_refuse_to_start(tmp_path, tools):
    node, port = Node(tmp_path, tools), free_port()
    logs, started = [tmp_path / f"{rank}.txt" for rank in (0, 1)], []
    try:
        for rank, log in enumerate(logs):
            variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_PORT": str(port)}
            words = ["generalist", "train", str(RECIPE), f"steps={6 + rank}", "--out", "run", "--quiet"]
            started.append(node.start(words, log, MASTER_ADDR="127.0.0.1", **variables))
        for process, log in zip(started, logs, strict=True):
            finished(process, log, code=2)
            assert "rank 1 has another recipe than rank 0" in log.read_text()
    finally:
        node.end()
    assert not (tmp_path / "run").exists()


HIDDEN = ("ninja", "g++", "gcc", "c++", "cc", "clang", "clang++", "nvcc", "ld")


def test_a_machine_without_ninja_and_a_compiler_trains_with_offload(tmp_path, tools):
    """PATH holds everything that the system has but these; nothing is built, and nothing is asked for."""
    path = tmp_path / "system"
    path.mkdir()
    for place in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for program in Path(place).iterdir():
            if program.name not in HIDDEN and not re.search(r"g(cc|\+\+)|clang|ninja", program.name):
                (path / program.name).exists() or (path / program.name).symlink_to(program)
    own = tmp_path / "programs"  # the environment's folder of programs holds a ninja of its own
    own.mkdir()
    for name in ("python", "generalist"):
        script(own / name, f'exec {tools / name} "$@"\n')
    node, log = Node(tmp_path, tools), tmp_path / "out.txt"
    built = tmp_path / "extensions"
    words = [
        "python",
        "-m",
        "generalist.launchers.agent",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "generalist.cli",
    ]
    words += ["train", str(RECIPE), *SHORT, "engine.zero_stage=3", "engine.offload=cpu", "--out", "run", "--quiet"]
    variables = {"PATH": f"{own}:{path}", "TORCH_EXTENSIONS_DIR": str(built)}
    probe = "import shutil; assert not any(map(shutil.which, ('ninja', 'g++', 'gcc', 'c++')))"
    try:
        finished(node.start(["python", "-c", probe], log, **variables), log)
        finished(node.start(words, log, **variables), log)
    finally:
        node.end()
    trained_by(tmp_path / "run", 2)
    assert not list(built.rglob("*")) if built.exists() else True
    assert read_meta(latest(tmp_path / "run")[1])["stage"] == 3


@pytest.mark.soak
def test_torchruns_file_and_deepspeeds_file_run_on_two_nodes(tmp_path):
    with two_nodes(tmp_path, real_programs()) as nodes:
        remote_shell(tmp_path / "bin", nodes)
        variables = {"PATH": f"{tmp_path / 'bin'}:{nodes[0].environment()['PATH']}"}
        common = {"NODES": ",".join(ADDRESSES), "INTERFACE": "eth0", "OUT": "torchrun", **variables}
        command = ["sh", str(LAUNCH / "torchrun.sh"), str(RECIPE), *SHORT]
        logs = [tmp_path / f"{i}.txt" for i in range(3)]
        started = [node.start(command, logs[i], NODE=str(i), **common) for i, node in enumerate(nodes)]
        for process, log in zip(started, logs[:2], strict=True):
            finished(process, log)
        (tmp_path / "hosts").write_text("10.0.0.1 slots=1\n10.0.0.2 slots=1\n")
        (tmp_path / ".deepspeed_env").write_text("GLOO_SOCKET_IFNAME=eth0\n")
        given = {"HOSTFILE": "hosts", "MASTER": ADDRESSES[0], "NODES": "2", "OUT": "deepspeed", **variables}
        command = ["sh", str(LAUNCH / "deepspeed.sh"), str(RECIPE), *SHORT]
        finished(nodes[0].start(command, logs[2], **given), logs[2])
    trained_by(tmp_path / "torchrun", 2)
    trained_by(tmp_path / "deepspeed", 2)
    assert equal(tmp_path / "torchrun", tmp_path / "deepspeed")
