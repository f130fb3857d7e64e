"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) by peft; the base model's weights stay frozen."""

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.errors import UserError
from smallwit.models.build import save_model, stored_tensors
from smallwit.models.chat import ChatTokenizer
from smallwit.models.loading import told
from smallwit.training.families import load_supported_model
from smallwit.training.lora_linear import fuse_adapters
from smallwit.training.settings import LoRA

ADAPTER = "adapter"
"""The folder, in what a stage with LoRA publishes, that holds the adapters alone."""
_WEIGHTS = "adapter_model.safetensors"


def add_adapters(model: PreTrainedModel, spec: LoRA, *, seed: int) -> Any:
    """Add adapters to every linear layer of `model`, in place, and freeze the rest. Return peft's wrapper."""
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise UserError("this recipe uses lora, which needs peft: pip install 'smallwit[lora]'") from error
    config = LoraConfig(r=spec.rank, lora_alpha=spec.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = _wrapped(model, config)
    for parameter in model.parameters():
        # Adapters are trained in float32, whatever the dtype of the frozen weights.
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    fuse_adapters(model)
    return adapted


def _wrapped(model: PreTrainedModel, config: Any) -> Any:
    from peft import get_peft_model

    with warnings.catch_warnings():
        # peft looks at a property by a name that transformers has given up.
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, config)


def merge_adapters(adapted: Any) -> PreTrainedModel:
    """Return the ordinary model, with the adapters merged into its weights."""
    return adapted.merge_and_unload()


def save_adapter(adapted: Any, folder: Path) -> None:
    """Write the adapters alone in peft's format, a few per cent of the model's bytes; `adapted` is not merged yet."""
    from peft import get_peft_model_state_dict

    # The base's place on this machine is left out, and a set has another order in each process.
    config = replace(adapted.peft_config["default"], base_model_name_or_path="", inference_mode=True)
    config.target_modules = sorted(config.target_modules)
    config.save_pretrained(str(folder))
    tensors = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / _WEIGHTS, {"format": "pt"})


def merge_folder(base: Path, adapter: Path, out: Path, dtype: str) -> int:
    """Write the model of the folder `base` with the adapters of `adapter` merged in float32; return its parameters.

    Raises `UserError` for a folder without peft's safetensors, and for adapters of a model of another shape.
    """
    if not (adapter / _WEIGHTS).is_file():
        raise UserError(f"{adapter}: holds no {_WEIGHTS}; name the folder {ADAPTER} that a stage with lora publishes")
    if out.is_file() or (out.exists() and any(out.iterdir())):
        raise UserError(f"{out}: is not empty; name a new folder")
    try:
        from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
    except ImportError as error:
        raise UserError("adapters are merged by peft: pip install 'smallwit[lora]'") from error
    model, chat = load_supported_model(base, dtype="float32", device="cpu"), ChatTokenizer.load(base)
    with told(f"{adapter}: cannot be merged into {base}"):
        tensors = load_file(adapter / _WEIGHTS)
        settings = json.loads((adapter / "adapter_config.json").read_bytes())
        adapted = _wrapped(model, LoraConfig(**settings | {"base_model_name_or_path": None}))
        set_peft_model_state_dict(adapted, tensors)
        unused = tensors.keys() ^ get_peft_model_state_dict(adapted, save_embedding_layers=False).keys()
    if unused:
        raise UserError(
            f"{adapter}: is not of {base}: only one of them has {min(unused)}; take the model it was trained on"
        )
    merged = merge_adapters(adapted)
    save_model(merged, chat, out, dtype=dtype)
    return merged.num_parameters()


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
