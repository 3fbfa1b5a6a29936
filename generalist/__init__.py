"""One shared encoder and one likelihood for any modality: the model, its training, evaluation and the command.

Importing this package is cheap: the classes below are imported on first access, and transformers' Auto classes
learn of the model when they are first used (``generalist.auto``).
"""

from typing import TYPE_CHECKING, Any

from generalist.auto import register_on_use
from generalist.startup import check_environment, check_shadows

if TYPE_CHECKING:
    from generalist.config import GeneralistConfig
    from generalist.model import GeneralistModel
    from generalist.processor import GeneralistProcessor

__version__ = "0.1.0"
__all__ = ["GeneralistConfig", "GeneralistModel", "GeneralistProcessor", "__version__"]

_HOMES = {
    "GeneralistConfig": "generalist.config",
    "GeneralistModel": "generalist.model",
    "GeneralistProcessor": "generalist.processor",
}

check_shadows()
register_on_use()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'generalist' has no attribute '{name}'")
    import importlib

    from generalist.auto import register

    try:
        register()
        return getattr(importlib.import_module(_HOMES[name]), name)
    except (ImportError, RuntimeError) as error:
        for problem in check_environment():
            error.add_note(problem)
        raise


def __dir__() -> list[str]:
    return sorted(__all__)
