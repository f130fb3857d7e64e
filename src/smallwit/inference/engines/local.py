"""Sample in the training process, on the weights that are being trained."""

from typing import TYPE_CHECKING, ClassVar, Literal

from smallwit.inference.engine import Capability, Engine, EngineSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from smallwit.inference.stop_strings import StopStrings


class LocalEngineSettings(EngineSettings):
    """Sample in the training process, on the weights that are being trained: no copy and no server."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"update", "stop_strings", "top_log_probs", "repetition_penalty"}
    )

    kind: Literal["local"] = "local"

    def open(
        self,
        model: "PreTrainedModel",
        *,
        vocabulary: int,
        batch: int,
        autocast: "torch.dtype | None",
        stop_strings: "StopStrings | None" = None,
    ) -> Engine:
        """Return the engine on `model`'s own weights."""
        from smallwit.inference.local import LocalEngine

        return LocalEngine(model, vocabulary=vocabulary, batch=batch, autocast=autocast, stop_strings=stop_strings)
