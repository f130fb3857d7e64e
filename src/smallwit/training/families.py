"""Check that a model family is computed as transformers computes it, or refuse it by name.

Training, packed rows and generation use an attention, a head and a cache of this project. A family whose layers do
anything else would train another model than the one in its folder. So a tiny random model of each family is compared
with transformers' own forward pass: those of `families.json` by `make check-families`, any other on its first load.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from smallwit.errors import UserError
from smallwit.inference import continuous_batch, decode, local, sampling, slot_cache
from smallwit.inference.engine import Request, Sampling, complete
from smallwit.inference.local import LocalEngine
from smallwit.models import attention, cpu_memory, head, tiny_config
from smallwit.models.attention import ATTENTION, UnsupportedAttention
from smallwit.models.build import disable_dropout, is_stateful
from smallwit.models.head import output_head
from smallwit.models.loading import load_config, load_model
from smallwit.objectives import batch as token_batch
from smallwit.objectives.batch import Example, TokenBatch
from smallwit.objectives.head import LogProb, token_statistics
from smallwit.storage.paths import user_cache
from smallwit.training import forward
from smallwit.training.forward import forward_hidden

TOLERANCE = 1e-4
"""The largest difference of a log-prob in float32, in nats."""

CONTEXT_MATTERS = 1e-3
"""By how much another token must move the log-probs of later ones, in nats, so that a model can be compared."""

ROW_LENGTHS = (40, 20)
PACKED_WIDTH = 64
PROMPTS = (20, 6)
NEW_TOKENS = 16


@dataclass(frozen=True)
class FamilyCheck:
    """The largest difference of a log-prob to transformers' own forward pass, in nats: of rows that are padded, of
    packed rows (`None` for layers with a state, for which packing is refused) and of tokens generated step by step.

    `refused` is the reason why the family is not supported, or `None`.
    """

    padded: float | None = None
    packed: float | None = None
    stepwise: float | None = None
    refused: str | None = None


def check_family(config: PreTrainedConfig) -> FamilyCheck:
    """Compare a tiny random model of this configuration with transformers' own forward pass."""
    try:
        tiny = tiny_config.tiny_config(config)
        ours, theirs = _models(tiny)
    except Exception as error:  # noqa: BLE001 a family's own code may fail in any way; its reason is told by name
        return FamilyCheck(refused=f"no tiny model of it can be made: {_brief(error)}")
    try:
        return _compared(ours, theirs)
    except Exception as error:  # noqa: BLE001 likewise
        return FamilyCheck(refused=_brief(error))


def _models(config: PreTrainedConfig) -> tuple[Any, Any]:
    """Return a model with the project's attention, and one of the same weights with transformers' own."""
    made = []
    for implementation in (ATTENTION, "eager"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: Any = AutoModelForCausalLM.from_config(
                deepcopy(config), attn_implementation=implementation, trust_remote_code=False
            )
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.dim() >= 2:
                        # Random weights of the usual size hardly attend to anything.
                        parameter.normal_(std=0.3 if parameter.shape[-1] <= 128 else 0.1)
        made.append(model.float().eval())
    return made[0], made[1]


@torch.no_grad()
def _compared(ours: Any, theirs: Any) -> FamilyCheck:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(3, tiny_config.VOCABULARY, (n,), generator=generator).tolist() for n in ROW_LENGTHS]
    expected = [_log_probs(theirs, row) for row in rows]
    changed = _log_probs(theirs, [*rows[0][:5], tiny_config.VOCABULARY + 2 - rows[0][5], *rows[0][6:]])
    if not _worst([changed[6:]], [expected[0][6:]]) > CONTEXT_MATTERS:
        raise RuntimeError("a tiny model of it does not look at its context, so nothing can be compared")
    padded = _worst(_trained(ours, rows, None), expected)
    packed = None if is_stateful(ours) else _worst(_trained(ours, rows, PACKED_WIDTH), expected)
    found = FamilyCheck(padded, packed, _stepwise(ours, theirs, rows))
    off = {name: value for name, value in asdict(found).items() if isinstance(value, float) and not value <= TOLERANCE}
    if not off:
        return found
    told = ", ".join(f"{name} rows {value:.2g}" for name, value in off.items())
    return FamilyCheck(refused=f"its log-probs differ from those of transformers ({told} nats)")


def _log_probs(model: Any, row: Sequence[int]) -> Tensor:
    """Return transformers' log-probs `[T - 1]` of a row by itself."""
    logits = model(torch.tensor([row])).logits[0, :-1].float()
    if not logits.isfinite().all():
        raise RuntimeError("its own forward pass gives numbers that are not finite")
    return torch.log_softmax(logits, 1).gather(1, torch.tensor(row[1:])[:, None])[:, 0]


def _trained(model: Any, rows: Sequence[list[int]], pack: int | None) -> list[Tensor]:
    """Return the log-probs of each row as training computes them, dropout off."""
    disable_dropout(model)
    model.train()
    batch = TokenBatch.of([Example(row, 1) for row in rows], 0, torch.device("cpu"), pack)
    output = output_head(model)
    views = [LogProb(batch.labels)]
    hidden = forward_hidden(model, batch)
    (values,) = token_statistics(hidden, output.weight[: tiny_config.VOCABULARY], views, softcap=output.softcap)
    model.eval()
    return [values[batch.sequence == number] for number in range(len(rows))]


def _stepwise(ours: Any, theirs: Any, rows: Sequence[list[int]]) -> float:
    """Return the largest difference of generated tokens' log-probs, of prompts of unlike lengths."""
    prompts = [row[:length] for row, length in zip(rows, PROMPTS, strict=True)]
    engine = LocalEngine(ours, vocabulary=tiny_config.VOCABULARY, batch=8)
    sampling = Sampling(1.0, NEW_TOKENS, ())
    completions = complete(
        engine, [Request(prompt, sampling, seed) for prompt, seed in zip(prompts, (11, 12), strict=True)]
    )
    pairs = list(zip(prompts, completions, strict=True))
    expected = [_log_probs(theirs, prompt + made.tokens)[len(prompt) - 1 :] for prompt, made in pairs]
    return _worst([torch.tensor(made.log_probs) for _, made in pairs], expected)


def _worst(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    return max(float((one - other).abs().max()) for one, other in zip(found, expected, strict=True))


def _brief(error: Exception) -> str:
    if "AttentionPlan" in str(error) or ATTENTION in str(error):
        return "its layers attend by code of their own, and not through transformers' AttentionInterface"
    if isinstance(error, UserError | UnsupportedAttention):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


# ---- what is known


def load_supported_model(
    origin: str | Path, *, dtype: str, device: str, revision: str | None = None
) -> PreTrainedModel:
    """Load a model of a folder or a hub repository. Raises `UserError` if there is none, or its family is refused."""
    require_family(load_config(origin, revision), str(origin))
    return load_model(origin, dtype=dtype, device=device, revision=revision)


def require_family(config: PreTrainedConfig, name: str) -> None:
    """Raise `UserError` for a family that is not computed as transformers computes it.

    A family of `families.json` was checked for this version of transformers. Any other is checked here, once, from its
    own configuration: the result is kept in the user's cache folder. `name` is of the model, for the message.
    """
    config = config.get_text_config()
    if config.model_type in supported_families():
        return
    found = _remembered(config)
    if found.refused is not None:
        raise UserError(
            f"model {name}: the family {config.model_type} is not supported: {found.refused}; "
            "docs/models.md lists the families that are"
        )


@cache
def supported_families() -> frozenset[str]:
    """Return the model types that were checked for the installed version of transformers, and are right."""
    table = json.loads(files("smallwit.training").joinpath("families.json").read_text(encoding="utf-8"))
    return frozenset(table["supported"] if table["transformers"] == transformers.__version__ else ())


def _remembered(config: PreTrainedConfig) -> FamilyCheck:
    try:
        identity = tiny_config.tiny_config(config).to_json_string()
    except Exception as error:  # noqa: BLE001 a family's own code may fail in any way; its reason is told by name
        return FamilyCheck(refused=f"no tiny model of it can be made: {_brief(error)}")
    generation = (continuous_batch, decode, local, sampling, slot_cache)
    modules = (attention, cpu_memory, head, tiny_config, *generation, forward, token_batch)
    code = [Path(str(module.__file__)).read_bytes() for module in modules]
    digest = hashlib.sha256(identity.encode() + b"".join(code) + transformers.__version__.encode()).hexdigest()[:24]
    folder = user_cache("families")
    if folder is None:
        return check_family(config)
    path = folder / f"{digest}.json"
    with suppress(OSError, ValueError, TypeError):
        return FamilyCheck(**json.loads(path.read_text(encoding="utf-8")))
    found = check_family(config)
    with suppress(OSError):  # a cache that cannot be written costs seconds at the next load
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(found)), encoding="utf-8")
    return found
