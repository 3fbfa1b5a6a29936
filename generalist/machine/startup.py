"""What can be wrong with the machine before any work starts, said in one line each, without a heavy import.

A torchvision that does not fit its torch is worse than none, because transformers, timm and open_clip all import it
when it is there and then fail somewhere deep inside (``check_environment``).

Only version metadata and import locations are read here: no torch, no transformers, a few milliseconds.
"""

import importlib.metadata
import importlib.util
import logging
import os
import platform
import sys
import warnings
from pathlib import Path

_formatted = warnings.formatwarning  # the interpreter's own
TOGETHER = "install the two together: pip install -U torch torchvision"


def check_environment() -> list[str]:
    """One line for each thing that does not fit; an empty list means that all is well.

    What torchvision asks of torch is read from its own metadata rather than from a table that would grow old.
    """
    torch, vision = _version("torch"), _version("torchvision")
    if torch is None:
        return ["torch is not installed: pip install torch torchvision"]
    if vision is None:
        return []
    for line in (_release_problem(torch, vision), _build_problem(torch, vision)):
        if line:
            return [line]
    return []


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _release_problem(torch: str, vision: str) -> str:
    """Does the release of torchvision accept this release of torch?"""
    from packaging.requirements import Requirement

    for text in importlib.metadata.requires("torchvision") or []:
        wanted = Requirement(text)
        if wanted.name != "torch" or (wanted.marker and not wanted.marker.evaluate()):
            continue
        if not wanted.specifier.contains(torch, prereleases=True):
            return (
                f"torchvision {vision} does not match torch {torch} (it needs torch{wanted.specifier}), "
                f"and imports of transformers, timm and open_clip will fail: {TOGETHER}"
            )
    return ""


def _build_problem(torch: str, vision: str) -> str:
    """Are both built for the same device? Local version labels tell: ``+cpu``, ``+cu130``, or none from PyPI."""
    torch_label, vision_label = torch.partition("+")[2], vision.partition("+")[2]
    x86_linux = sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64")
    cpu_beside_cuda = torch_label == "cpu" and vision_label == "" and x86_linux
    other_cuda = torch_label != vision_label and torch_label.startswith("cu") and vision_label.startswith("cu")
    if cpu_beside_cuda or other_cuda:
        return (
            f"torchvision {vision} is built for another device than torch {torch}, and its compiled part "
            f"cannot load: {TOGETHER} (both from the same place)"
        )
    return ""


def hush() -> None:
    """Keep other libraries' progress bars and notices off a command's output, imported already or not.

    DeepSpeed warns wherever there is no GPU, which is no news to whoever works without one. What this package warns of
    is said in one line, without the place in its code.
    """
    warnings.formatwarning = _noted
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if "transformers" in sys.modules:
        sys.modules["transformers"].logging.disable_progress_bar()
    logging.getLogger("DeepSpeed").addFilter(_is_news)


def _noted(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    if category is UserWarning and Path(filename).is_relative_to(Path(__file__).parents[1]):
        return f"generalist: {message}\n"
    return _formatted(message, category, filename, lineno, line)


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Setting accelerator to CPU")
