"""Where the reference tensors lie: those of this folder, and whatever more of them lies beside the checkout."""

import filecmp
from functools import cache
from pathlib import Path

from safetensors import SafetensorError, safe_open

HERE = Path(__file__).resolve().parent / "reference"
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "reference"
UNI_PERCEIVER, META_TRANSFORMER = HERE / "uni_perceiver", HERE / "meta_transformer"
# folder -> a beginning of a tensor's name that a folder of the same code has
SIGNS = {UNI_PERCEIVER: "w.fused_encoder.", META_TRANSFORMER: "sd.0.attn.qkv."}


@cache
def folders(own: Path) -> list[Path]:
    """`own`, and every folder beside the checkout with files of the same code that are not the same files."""
    found = [own]
    for folder in sorted({path.parent for path in BESIDE.rglob("*.safetensors")}) if BESIDE.is_dir() else []:
        files = sorted(folder.glob("*.safetensors"))
        if any(_has(path, SIGNS[own]) for path in files) and not all(_same(path, own / path.name) for path in files):
            found.append(folder)
    return found


def _same(path: Path, other: Path) -> bool:
    return other.is_file() and filecmp.cmp(path, other, shallow=False)


def _has(path: Path, sign: str) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return any(name.startswith(sign) for name in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        return False


def label(folder: Path) -> str:
    """A test's name of a folder."""
    return "kept" if HERE in folder.parents else folder.name
