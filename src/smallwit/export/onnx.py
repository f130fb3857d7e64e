"""ONNX folders for onnxruntime-genai, written by its builder and opened again, each in a process of its own."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from smallwit.errors import RunFailed, UserError
from smallwit.export import OnnxQuant, onnx_process
from smallwit.export.exported import Exported
from smallwit.export.texts import TOKENS, compare, continue_locally, questions, short_prompts
from smallwit.inference.engine import Completion
from smallwit.models.chat import ChatTokenizer
from smallwit.models.fit import vocabulary_of
from smallwit.models.handover import PROBES
from smallwit.models.loading import load_config, load_model
from smallwit.storage.paths import read_json_object

FILE = "model.onnx"
PACKAGES = ("onnxruntime_genai", "onnxruntime", "onnx", "onnx_ir")
"""Python modules that it needs."""
FAMILIES = ("qwen2", "qwen3", "llama")
"""Those whose configuration the builder reads as transformers does; it does not read Gemma 3's of transformers 5."""
BUILDER: dict[OnnxQuant, tuple[str, ...]] = {
    "f32": ("fp32",),
    # As in GGUF the head keeps 8 bits. Its k_quant loses less, but writes no rows of an odd number of blocks.
    "int4": ("int4", "algo_config=rtn", "matmul_mixed_precision=last_matmul:int8"),
}
"""The builder's name of each number format, and its options. What it writes in fp16 or bf16 does not run on a CPU."""
POSITIONS = ("default", "linear", "llama3")
"""Types of rotary positions that were seen to be computed as here; others the builder may pass over without a word."""
HEAD_STEP = 16
"""ONNX Runtime's attention takes heads whose width is a multiple of it."""
APART: dict[OnnxQuant, float] = {"f32": 1e-3, "int4": 2.0}
"""Log-probs that are further away on average, in nats, are those of another function: rounding does not do that."""
_COMMAND = (sys.executable, "-m", onnx_process.__name__)


@dataclass(frozen=True)
class _Local:
    """What the local engine makes of the prompts, and the sizes of the model."""

    prompts: list[list[int]]
    completions: list[Completion]
    vocabulary: int
    parameters: int


def export_onnx(source: Path, target: Path, quant: OnnxQuant, _copy: Path) -> Exported:
    """Write the model of a folder into the folder `target`, as onnxruntime-genai reads it.

    Nothing is read back as a model folder. onnxruntime-genai opens what was written, continues prompts, and scores what
    the local engine makes of them. Raises `UserError` for a model that cannot be exported, or where a package is
    missing, and `RunFailed` where onnxruntime-genai fails, or computes something else.
    """
    started = time.monotonic()
    require_writable(source)
    require_packages()
    chat = ChatTokenizer.load(source)
    local = _continued(source, chat)
    program = f"{source} as ONNX: onnxruntime-genai"
    ask(program, do="build", source=str(source), target=str(target), settings=BUILDER[quant])
    _set_ends(target / "genai_config.json", chat.ends.all)
    texts = [*PROBES, *questions()]
    answer = ask(program, do="read", **_questions_for(target, chat, local, texts))
    scores = compare_scores([each.log_probs for each in local.completions], answer["log_probs"], quant, program)
    return Exported(
        quant=quant,
        size=sum(path.stat().st_size for path in target.glob(f"{FILE}*")),
        parameters=local.parameters,
        program="onnxruntime-genai",
        parity=compare([each.tokens for each in local.completions], answer["tokens"]),
        notes=(scores, *_other_readings(chat, texts, answer["ids"])),
        seconds=time.monotonic() - started,
    )


def installed() -> bool:
    """Return whether ONNX folders can be written here."""
    return all(find_spec(name) is not None for name in PACKAGES)


def require_packages() -> None:
    """Raise `UserError`, with the command that installs it, where a package is missing."""
    for name in PACKAGES:
        if find_spec(name) is None:
            raise UserError(f"--format onnx: needs the package {name}: pip install 'smallwit[onnx]'")


def require_writable(folder: Path) -> None:
    """Raise `UserError` for a model that the builder does not write, or that ONNX Runtime does not compute."""
    config = load_config(folder)
    if config.model_type not in FAMILIES:
        what = f"is of the family {config.model_type!r}, and written as ONNX are {', '.join(FAMILIES)}"
        raise UserError(f"{folder}: {what}; export it as GGUF, or use another converter")
    positions = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if positions not in POSITIONS:
        what = f"its rotary positions are {positions!r}, and written as ONNX are {', '.join(POSITIONS)}"
        raise UserError(f"{folder}: {what}; export it as GGUF, or use another converter")
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if width % HEAD_STEP:
        what = f"its heads have a width of {width}, and ONNX Runtime takes multiples of {HEAD_STEP}"
        raise UserError(f"{folder}: {what}; export it as GGUF")


def compare_scores(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], quant: OnnxQuant, program: str
) -> str:
    """Return how far two engines' log-probs of the same tokens are from each other, as a line.

    Raises `RunFailed` where they are further away than the number format rounds, or are no numbers.
    """
    apart = [abs(a - b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True)]
    average = sum(apart) / len(apart)
    line = f"its log-probs of the model's own texts are {average:.2g} away on average, {max(apart):.2g} at most"
    if not average <= APART[quant]:  # so that NaN is refused, too
        raise RunFailed(f"{program} computes another function: {line}; export the model as GGUF")
    return line


def _continued(source: Path, chat: ChatTokenizer) -> _Local:
    """Let the local engine continue the prompts. The model is in memory only as long."""
    model: Any = load_model(source, dtype="float32", device="cpu")
    prompts = short_prompts(chat, model.config.max_position_embeddings)
    completions = continue_locally(model, chat, prompts, str(source))
    return _Local(prompts, completions, vocabulary_of(chat, model, str(source)), model.num_parameters())


def _set_ends(path: Path, ends: Sequence[int]) -> None:
    """Let answers end where they end here: the builder knows only what the model's own settings list."""
    settings = read_json_object(path)
    settings["model"]["eos_token_id"] = list(ends)
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _questions_for(target: Path, chat: ChatTokenizer, local: _Local, texts: Sequence[str]) -> dict[str, Any]:
    return {
        "folder": str(target),
        "prompts": local.prompts,
        "replies": [each.tokens for each in local.completions],
        "new_tokens": TOKENS,
        "stop": chat.ends.all,
        "vocabulary": local.vocabulary,
        "texts": texts,
        "question": texts[0] if chat.template else None,
        "threads": torch.get_num_threads(),
    }


def _other_readings(chat: ChatTokenizer, texts: Sequence[str], found: list[list[int]] | str) -> tuple[str, ...]:
    if isinstance(found, str):
        return (f"onnxruntime-genai does not read its tokenizer or chat template ({found[:200]}); give it token ids",)
    # By the tokenizer itself: onnxruntime-genai makes control tokens of what spells them.
    own: list[list[int]] = chat.tokenizer(texts, add_special_tokens=False)["input_ids"]
    names = [repr(text) for text in texts]
    if chat.template:
        own, names = [*own, *chat.encode_prompts(texts[:1])], [*names, "its chat template"]
    other = [name for name, ids, theirs in zip(names, own, found, strict=True) if ids != theirs]
    if not other:
        return ()
    return (f"onnxruntime-genai's tokenizer reads {len(other)} of {len(own)} texts otherwise: the first is {other[0]}",)


def ask(what: str, **request: Any) -> dict[str, Any]:
    """Give a request to a process of its own. Raises `RunFailed` with the last line that it said, if it fails."""
    ran = subprocess.run(_COMMAND, input=json.dumps(request), capture_output=True, text=True, errors="replace")
    if ran.returncode != 0:
        last = next(reversed([text.strip() for text in ran.stderr.splitlines() if text.strip()]), "it said nothing")
        raise RunFailed(f"{what} has ended with status {ran.returncode} ({last[:200]})")
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer
