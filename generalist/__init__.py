"""One shared encoder and one likelihood for any modality: the model, its training, evaluation and the command.

Importing this package is cheap: the classes below are imported on first access, and transformers' Auto classes
learn of the model when they are first used (``generalist.hf.auto``).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

# In a checkout data/, tokenizers_mod/, tasks/ and scripts/ stand beside this folder; in an installed package inside it.
if not (Path(__file__).parent / "data").is_dir():
    __path__.append(str(Path(__file__).parent.parent))

from generalist.data.base.moved import install
from generalist.hf.auto import register_on_use
from generalist.machine.startup import check_environment

if TYPE_CHECKING:
    from generalist.fitting.api import fit
    from generalist.hf.model import GeneralistModel
    from generalist.hf.predict import load
    from generalist.hf.pretrained.config import GeneralistConfig
    from generalist.hf.processor import GeneralistProcessor
    from generalist.shipped import path

__version__ = "0.1.0"
__all__ = ["GeneralistConfig", "GeneralistModel", "GeneralistProcessor", "__version__", "fit", "load", "path"]

_HOMES = {
    "GeneralistConfig": "generalist.hf.pretrained.config",
    "GeneralistModel": "generalist.hf.model",
    "GeneralistProcessor": "generalist.hf.processor",
    "fit": "generalist.fitting.api",
    "load": "generalist.hf.predict",
    "path": "generalist.shipped",
}

register_on_use()
install()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'generalist' has no attribute '{name}'")
    from generalist.data.base.named import named
    from generalist.hf.auto import register

    try:
        register()
        return named(f"{_HOMES[name]}:{name}")
    except (ImportError, RuntimeError) as error:
        for problem in check_environment():
            error.add_note(problem)
        raise


def __dir__() -> list[str]:
    return sorted(__all__)
