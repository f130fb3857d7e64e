"""Sample in the training process, on the weights that are being trained."""

from typing import TYPE_CHECKING, Literal

from smallwit.inference.engine import Engine, EngineSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class LocalEngineSettings(EngineSettings):
    """Sample in the training process, on the weights that are being trained: no copy and no server."""

    kind: Literal["local"] = "local"

    def open(
        self, model: "PreTrainedModel", *, vocabulary: int, pad: int, batch: int, autocast: "torch.dtype | None"
    ) -> Engine:
        """Return the engine on `model`'s own weights."""
        from smallwit.inference.local import LocalEngine

        return LocalEngine(model, vocabulary=vocabulary, pad=pad, batch=batch, autocast=autocast)
