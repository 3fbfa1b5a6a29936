"""`PackedModel` as a model of transformers: saved, loaded, initialised and given kernels as all others are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from transformers import PreTrainedModel

from generalist.data.base.errors import UserError
from generalist.data.base.trust import trusting
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.model.folder.referred import complete, prefix_of
from generalist.model.model import PackedModel
from generalist.nn.attention.kernels import needs_flash
from generalist.tokenizers_mod.libraries.weights import BY_TENSOR, refuse_pickles


class SavedModel(PackedModel, PreTrainedModel):
    """The same tensors under the same names."""

    config_class = GeneralistConfig
    config: GeneralistConfig
    base_model_prefix = "generalist"
    _no_split_modules: ClassVar[list[str]] = ["Block"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    if TYPE_CHECKING:  # transformers' own members, which are not annotated

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, config: GeneralistConfig) -> None:
        PreTrainedModel.__init__(self, config)
        self.make(config)
        # weights that a saved model finds in their package
        self._keys_to_ignore_on_load_missing = [rf"^{prefix_of(name)}" for name in config.referred or {}]
        self.post_init()

    device = PreTrainedModel.device

    def _flash_attn_can_dispatch(self, flash_attn_version: int, is_init_check: bool = False) -> bool:
        """transformers' check of package and device, with a line that says what to install."""
        try:
            return super()._flash_attn_can_dispatch(flash_attn_version, is_init_check)
        except (ImportError, ValueError) as error:
            raise UserError(needs_flash(flash_attn_version)) from error

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """A saved model; trust_remote_code=True also allows the modules of foreign modalities that it names.

        UserError for a folder whose weights are a pickle alone: transformers would read it.
        """
        if pretrained_model_name_or_path is not None:
            refuse_pickles(Path(pretrained_model_name_or_path) / kwargs.get("subfolder", ""), way=BY_TENSOR)
        with trusting(bool(kwargs.get("trust_remote_code"))):
            found = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
            complete(found[0] if isinstance(found, tuple) else found)
            return found
