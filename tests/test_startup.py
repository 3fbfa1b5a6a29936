"""The start-up checks say in one line what does not fit, and importing the package is cheap and registers it."""

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from generalist import startup
from generalist.startup import check_environment, check_shadows

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


def test_our_own_packages_are_found():
    check_shadows()


@pytest.mark.parametrize("kind", ["package", "module"])
def test_another_package_of_the_same_name_is_a_clear_error(tmp_path, kind):
    other = tmp_path / "data" / "__init__.py" if kind == "package" else tmp_path / "data.py"
    other.parent.mkdir(exist_ok=True)
    other.write_text("")
    run = python("import generalist", path=[tmp_path])
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: generalist needs its own package 'data'") and str(tmp_path) in last


def test_a_mere_folder_of_the_same_name_does_no_harm(tmp_path):
    (tmp_path / "data").mkdir()
    run = python("import generalist, data.types; print(data.__file__)", path=[tmp_path])
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(ROOT / "data" / "__init__.py")


def test_an_already_imported_stranger_is_a_clear_error(tmp_path):
    (tmp_path / "tasks.py").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import tasks; sys.path.pop(0); import generalist"
    run = python(code)
    assert run.returncode == 1 and "generalist needs its own package 'tasks'" in run.stderr.splitlines()[-1]


def test_a_missing_package_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(startup, "SIBLINGS", ("no_such_package_of_ours",))
    with pytest.raises(ImportError, match="install generalist again"):
        check_shadows(tmp_path)


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
