"""Sample in another process of this machine, on a copy of the student's weights."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from smallwit.device import devices_of, resolve_device
from smallwit.errors import UserError
from smallwit.inference.engine import Capability, Engine, EngineSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from smallwit.inference.stop_strings import StopStrings


class ProcessEngineSettings(EngineSettings):
    """Sample in another process of this machine, on a copy of the student's weights that each update refreshes."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"update", "ahead", "stop_strings", "top_log_probs", "repetition_penalty"}
    )

    kind: Literal["process"]
    device: str | None = Field(
        default=None,
        pattern=r"^(cpu|mps|cuda(:\d+)?)$",
        description="device of the other process, for example a second GPU, cuda:1; that of the stage if absent",
    )

    def check_machine(self) -> None:
        if self.device is None:
            return
        kind, _, number = self.device.partition(":")
        there = devices_of(resolve_device(kind))
        if int(number or 0) >= there:
            raise UserError(f"device {self.device}: this machine has {there:g} of them, from {kind}:0 on")

    def open(
        self,
        model: "PreTrainedModel",
        *,
        vocabulary: int,
        batch: int,
        autocast: "torch.dtype | None",
        stop_strings: "StopStrings | None" = None,
    ) -> Engine:
        """Return the engine on a copy of `model`, which its first update makes."""
        from smallwit.inference.process import ProcessEngine

        return ProcessEngine(
            model,
            vocabulary=vocabulary,
            batch=batch,
            autocast=autocast,
            stop_strings=stop_strings,
            device=self.device,
        )
