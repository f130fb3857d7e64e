"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) by peft; the base model's weights stay frozen."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.errors import UserError
from smallwit.models.build import stored_tensors
from smallwit.training.settings import LoRA


def add_adapters(model: PreTrainedModel, spec: LoRA, *, seed: int) -> Any:
    """Add adapters to every linear layer of `model`, in place, and freeze the rest. Return peft's wrapper."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise UserError("this recipe uses lora, which needs peft: pip install 'smallwit[lora]'") from error
    config = LoraConfig(r=spec.rank, lora_alpha=spec.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config)
    for parameter in model.parameters():
        # Adapters are trained in float32, whatever the dtype of the frozen weights.
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def merge_adapters(adapted: Any) -> PreTrainedModel:
    """Return the ordinary model, with the adapters merged into its weights."""
    return adapted.merge_and_unload()


@torch.no_grad()
def merged_tensors(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yield the stored tensors of the model that `merge_adapters` would make, one at a time; any model may be given."""
    adapted: dict[str, Any] = {
        name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")
    }
    for name, tensor in stored_tensors(model).items():
        owner, _, part = name.partition(".base_layer.")
        if owner in adapted and part:
            deltas = [adapted[owner].get_delta_weight(each) for each in adapted[owner].active_adapters]
            yield f"{owner}.{part}", sum(deltas, tensor.float()) if part == "weight" else tensor
        elif name.partition(".lora_")[0] not in adapted:
            yield name, tensor
