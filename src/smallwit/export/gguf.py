"""GGUF files, as llama.cpp and Ollama read them: header, tokenizer, and the tensors in a chosen number format."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from smallwit.errors import UserError
from smallwit.export import Quant
from smallwit.export.gguf_vocabulary import add_tokenizer
from smallwit.models.chat import ChatTokenizer
from smallwit.models.fit import fitting
from smallwit.models.gguf_file import gguf_package
from smallwit.models.gguf_import import FAMILIES
from smallwit.models.gguf_layout import ROPE, as_stored, llama3_divisors, tensor_names
from smallwit.models.loading import load_config, load_model
from smallwit.models.number_formats import weight_formats

_QUESTION = ({"role": "user", "content": "?"},)


@dataclass(frozen=True)
class ExportedModel:
    """A model in memory, in float32, that is going to be exported; `architecture` is llama.cpp's name of its family."""

    folder: Path
    architecture: str
    chat: ChatTokenizer
    model: Any

    @property
    def config(self) -> Any:
        """Return its configuration."""
        return self.model.config


@dataclass(frozen=True)
class WrittenFile:
    """What was written: the number format of each tensor, llama.cpp's name of the tokenizer's type, and notes."""

    kinds: dict[str, str]
    tokenizer: str
    notes: list[str]


def open_model(folder: Path) -> ExportedModel:
    """Load the model of a folder. Raises `UserError` for one that no GGUF file is written of."""
    architecture = architecture_of(load_config(folder), str(folder), "use llama.cpp's own converter")
    chat = ChatTokenizer.load(folder)
    if chat.template and chat.render(_QUESTION, add_generation_prompt=True) == chat.render(_QUESTION):
        what = "its chat template begins no assistant's turn (add_generation_prompt writes nothing)"
        raise UserError(f"{folder}: {what}; give the tokenizer a template that does")
    return ExportedModel(folder, architecture, chat, load_model(folder, dtype="float32", device="cpu"))


def architecture_of(config: PreTrainedConfig, model: str, remedy: str) -> str:
    """Return llama.cpp's name of a model's family. Raises `UserError` for a family that is not written."""
    names = {model_type: name for name, (model_type, _) in FAMILIES.items()}
    if config.model_type not in names:
        what = f"is of the family {config.model_type!r}, and written as GGUF are {', '.join(names)}"
        raise UserError(f"{model}: {what}; {remedy}")
    return names[config.model_type]


def write_gguf(source: ExportedModel, path: Path, quant: Quant) -> WrittenFile:
    """Write a model as a GGUF file, its tensors in their `weight_formats`. Raises `OSError` where the disk refuses."""
    gguf = gguf_package(path)
    config, tensors = source.config, _stored_names(source, gguf)
    rows = source.model.get_input_embeddings().weight.shape[0]
    fitting(source.chat, rows, str(source.folder))
    writer = gguf.GGUFWriter(str(path), source.architecture)
    _add_header(writer, source, quant, gguf)
    tokenizer, notes = add_tokenizer(writer, source.chat, rows, gguf)
    parameters, formats = dict(source.model.named_parameters()), weight_formats(source.model, quant)
    kinds = {name: gguf.GGMLQuantizationType[formats[own]] for name, own in tensors.items()}
    whole = [name for name, kind in kinds.items() if kind.name == "F16" and quant.startswith("q")]
    if whole:
        others = f" and {len(whole) - 1} others" if len(whole) > 1 else ""
        notes.append(f"{whole[0]}{others}: rows that are no multiple of 32 numbers stay in F16")
    divisors = _rope_divisors(config)
    if divisors is not None:
        writer.add_tensor_info(ROPE, divisors.shape, divisors.dtype, divisors.nbytes)
    for name, own in tensors.items():
        shape = tuple(parameters[own].shape)
        size = math.prod(gguf.quants.quant_shape_to_byte_shape(shape, kinds[name]))
        writer.add_tensor_info(name, shape, None, size, raw_dtype=kinds[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    # Not by the writer: it keeps all tensors in memory, and its errors do not say what the disk refuses.
    with path.open("ab") as file:
        if divisors is not None:
            _append(file, divisors, gguf)
        for name, own in tensors.items():
            stored = as_stored(source.architecture, name, parameters[own].detach(), config)
            _append(file, gguf.quantize(stored.contiguous().numpy(), kinds[name]), gguf)
    return WrittenFile({name: kind.name for name, kind in kinds.items()}, tokenizer, notes)


def _append(file: Any, numbers: Any, gguf: Any) -> None:
    file.write(bytes(-file.tell() % gguf.GGUF_DEFAULT_ALIGNMENT))
    file.write(numbers.tobytes())
    file.write(bytes(-file.tell() % gguf.GGUF_DEFAULT_ALIGNMENT))


def _stored_names(source: ExportedModel, gguf: Any) -> dict[str, str]:
    """Return the model's own name of each tensor of the file."""
    own = [name for name, _ in source.model.named_parameters()]
    names = tensor_names(gguf, source.architecture, source.config.num_hidden_layers, own)
    return {stored: name for name, stored in names.items()}


def _add_header(writer: Any, source: ExportedModel, quant: Quant, gguf: Any) -> None:
    config, kinds = source.config, gguf.LlamaFileType
    writer.add_type("model")
    writer.add_name(source.folder.name)
    writer.add_file_type(kinds.ALL_F32 if quant == "f32" else kinds[f"MOSTLY_{quant.upper()}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(source.model.get_input_embeddings().weight.shape[0])
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    rope = config.rope_parameters
    if source.architecture == "gemma3":
        writer.add_sliding_window(config.sliding_window)
        writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
        if config.final_logit_softcapping is not None:
            writer.add_final_logit_softcapping(config.final_logit_softcapping)
        rope = rope["full_attention"]
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def _rope_divisors(config: Any) -> Any:
    """Return the divisors of Llama 3's rotary frequencies in float32, or `None` where there are none."""
    rope = config.rope_parameters
    if rope.get("rope_type") != "llama3":
        return None
    keys = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    return llama3_divisors(rope["rope_theta"], config.head_dim, *(rope[key] for key in keys)).float().numpy()
