"""The start-up checks say in one line what does not fit, and importing the package is cheap and registers it."""

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from generalist.machine import startup
from generalist.machine.startup import check_environment

ROOT = Path(__file__).resolve().parent.parent


def python(code: str, *, path: list[Path] | None = None) -> subprocess.CompletedProcess:
    """Run code in a fresh interpreter that finds the project after the folders in ``path``."""
    folders = [*(path or []), ROOT]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd="/")


@pytest.fixture
def installed(monkeypatch):
    """Pretend that these versions are installed: installed(torch=..., torchvision=..., needs=[...])."""

    def pretend(torch, torchvision, needs):
        versions = {"torch": torch, "torchvision": torchvision}

        def version(name):
            if versions[name] is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(importlib.metadata, "version", version)
        monkeypatch.setattr(importlib.metadata, "requires", lambda name: needs)
        monkeypatch.setattr(startup.sys, "platform", "linux")
        monkeypatch.setattr(startup.platform, "machine", lambda: "x86_64")

    return pretend


def test_this_environment_fits():
    assert check_environment() == []


@pytest.mark.parametrize(
    ("torch", "vision", "needs"),
    [
        ("2.11.0", "0.26.0", "torch==2.11.0"),
        ("2.11.0+cu128", "0.26.0+cu128", "torch==2.11.0"),
        ("2.14.1", "0.29.1", "torch (>=2.14.0)"),
        ("2.13.0+cpu", "0.28.0+cpu", "torch==2.13.0"),
        ("2.14.1+cu130", "0.29.1", "torch>=2.14.0"),
    ],
)
def test_a_matching_pair_passes(installed, torch, vision, needs):
    installed(torch, vision, ["numpy", needs, "gdown>=4.7.3; extra == 'gdown'"])
    assert check_environment() == []


def test_a_torchvision_of_another_release_is_named_in_one_line(installed):
    installed("2.14.1", "0.26.0", ["numpy", "torch==2.11.0"])
    (line,) = check_environment()
    assert "torchvision 0.26.0" in line and "torch 2.14.1" in line and "pip install" in line and "\n" not in line


@pytest.mark.parametrize(("torch", "vision"), [("2.13.0+cpu", "0.28.0"), ("2.13.0+cu126", "0.28.0+cu130")])
def test_a_torchvision_built_for_another_device_is_named_in_one_line(installed, torch, vision):
    installed(torch, vision, ["torch==2.13.0"])
    (line,) = check_environment()
    assert "another device" in line and "\n" not in line


def test_no_torch_is_named_and_no_torchvision_is_allowed(installed):
    installed(None, None, [])
    assert "torch is not installed" in check_environment()[0]
    installed("2.14.1", None, [])
    assert check_environment() == []


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, generalist.cli; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    run = python(code)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr


def test_an_unknown_attribute_is_an_attribute_error():
    import generalist

    with pytest.raises(AttributeError, match="Generalst"):
        generalist.Generalst  # noqa: B018


def test_the_version_is_one(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "generalist.__version__"}


def test_info_imports_nothing_heavy():
    code = "import sys; from generalist.cli import main; main(['info']); "
    done = python(code + "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
    assert done.stdout.splitlines()[0] == "versions"
    if not any(os.path.exists(driver) for driver in drivers):  # torch is asked which GPUs there are
        assert done.stdout.splitlines()[-1] == "[]"


def test_what_the_package_warns_of_is_one_line_of_a_command(tmp_path):
    code = (
        "import warnings; from generalist.machine import startup; startup.hush();"
        "warnings.warn_explicit('names are lost', UserWarning, startup.__file__, 3);"
        "warnings.warn_explicit('of another', UserWarning, 'other.py', 3)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert said.splitlines() == ["generalist: names are lost", "other.py:3: UserWarning: of another"]
