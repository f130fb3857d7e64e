"""Models of a recipe by their shapes alone: what generating with them takes, and how fast this machine is with them."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from smallwit.inference.engine import Request, Sampling, complete
from smallwit.inference.local import LocalEngine, prefill_bytes, slot_bytes
from smallwit.models.attention import ATTENTION
from smallwit.models.build import DTYPES, layer_parameters, new_config
from smallwit.models.chat import ChatTokenizer
from smallwit.models.cpu_memory import recompute_swiglu
from smallwit.models.dry_tensors import dry_tensors
from smallwit.models.fit import vocabulary_of
from smallwit.models.flops import Cost
from smallwit.models.loading import load_config
from smallwit.models.tokenizer import load_tokenizer
from smallwit.stages.common.inputs import autocast_of, chat_of
from smallwit.stages.estimate import Known, Rate, StageEstimate, Work
from smallwit.stages.job import Job
from smallwit.tasks.base import Problem
from smallwit.training.demonstrations import encode_problems

CPU_FLOPS, GPU_FLOPS = 1e11, 1e14
"""FLOPs of what a calibration computes for one rate, about: a second or two. Of a larger model it takes some layers."""
MOST_PROMPTS = 512
"""Prompts whose lengths are looked at."""
MEASURED_TOKENS = 12
"""Tokens of each completion that a calibration of decoding writes."""


def shaped_model(job: Job, name: str, *, dtype: str = "float32", most: float | None = None) -> PreTrainedModel:
    """Return the model or stage `name` with random weights, or among dry tensors without any.

    With `most` it has the first layers alone, those of about so many parameters.
    """
    spec = job.recipe.first_model(name)
    if spec.new is not None:
        tokenizer = load_tokenizer(job.inputs["tokenizer"])
        config: Any = new_config(**spec.new.model_dump(), vocabulary_rows=len(tokenizer), tokenizer=tokenizer)
    else:
        config = copy.deepcopy(load_config(job.inputs[name], spec.revision))
    if most is not None:
        with torch.device("meta"):
            each = layer_parameters(AutoModelForCausalLM.from_config(config, trust_remote_code=False))
        text = config.get_text_config()
        text.num_hidden_layers = max(1, min(text.num_hidden_layers, int(most / each)))
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[: text.num_hidden_layers]
    model: Any = AutoModelForCausalLM.from_config(
        config, attn_implementation=ATTENTION, dtype=DTYPES[dtype], trust_remote_code=False
    )
    if job.device == "cpu":
        recompute_swiglu(model)
    # Dry tensors have no device but the CPU's.
    shaped: PreTrainedModel = model if isinstance(next(model.parameters()), FakeTensor) else model.to(job.device)
    return shaped


def weight_bytes(model: PreTrainedModel) -> int:
    """Return the bytes of a model's parameters, a tied table once."""
    return sum(parameter.nbytes for parameter in model.parameters())


@dataclass(frozen=True)
class Generation:
    """What it takes to write completions: bytes beside the weights, and the work of reading prompts and of writing."""

    memory: float
    work: tuple[Work, Work]

    @property
    def flops(self) -> float:
        return sum(each.flops for each in self.work)


def generation(
    job: Job,
    name: str,
    chat: ChatTokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    limit: int,
    length: float,
    rows: int,
    group: int = 1,
    times: float = 1.0,
) -> Generation:
    """Return what `group` completions of each prompt take, `times` over: `length` tokens each, at most `limit`.

    A `LocalEngine` writes up to `rows` at a time.
    """
    autocast = autocast_of(job)
    with dry_tensors():
        model = shaped_model(job, name)
        cost, vocabulary = Cost.of(model), vocabulary_of(chat, model, name)
    item = (autocast or torch.float32).itemsize
    capacity = max(map(len, prompts)) + limit
    memory = rows * slot_bytes(model.config, item, capacity, vocabulary)
    memory += prefill_bytes(model, sum(map(len, prompts)))
    added = max(0, round(length) - 1)
    read = sum(cost.forward([len(prompt)], 1) for prompt in prompts)
    wrote = group * (sum(cost.forward([len(prompt) + added], 1 + added) for prompt in prompts) - read)
    shape = shape_of(job, name) | {"rows": rounded(rows), "tokens": rounded(capacity)}
    rates: dict[str, float] = {}

    def rate(kind: str) -> Rate:
        def measure() -> float:
            if not rates:
                asked = [prompt for prompt in prompts for _ in range(group)][:rows]
                rates.update(_engine_rates(job, name, chat, asked))
            return rates[kind]

        return measure

    return Generation(
        memory,
        (
            Work("forward", read * times, shape, rate("forward")),
            Work("decode", wrote * times, shape, rate("decode")),
        ),
    )


def answers(
    job: Job,
    name: str,
    chat: ChatTokenizer,
    problems: Sequence[Problem],
    *,
    limit: int,
    known: Known,
    rows: int,
    times: float = 1.0,
) -> Generation:
    """Return what a completion of each problem takes, `times` over; of many problems some are looked at."""
    some = [problems[place] for place in range(0, len(problems), max(1, len(problems) // MOST_PROMPTS))]
    prompts = encode_problems(chat, some)
    length = min(limit, known.length or limit)
    share = times * len(problems) / len(some)
    return generation(job, name, chat, prompts, limit=limit, length=length, rows=min(rows, len(problems)), times=share)


def answers_estimate(
    job: Job, name: str, problems: Sequence[Sequence[Problem]], *, limit: int, known: Known, rows: int
) -> StageEstimate:
    """Return the estimate of a stage that lets a model answer problems, those of one task after the other."""
    chat = chat_of(job, name)
    found = [answers(job, name, chat, some, limit=limit, known=known, rows=rows) for some in problems if some]
    with dry_tensors():
        model = shaped_model(job, name, dtype=job.dtype)
    length = min(limit, known.length or limit)
    return StageEstimate(
        model.num_parameters(),
        {"weights": weight_bytes(model), "cache": max(each.memory for each in found)},
        tuple(work for each in found for work in each.work),
        sum(each.flops for each in found),
        length * sum(map(len, problems)),
        notes=(f"{length:.0f} tokens an answer, {'as before' if known.length else 'the limit'}",),
    )


def _engine_rates(job: Job, name: str, chat: ChatTokenizer, prompts: Sequence[Sequence[int]]) -> dict[str, float]:
    """Return the FLOP/s at which an engine reads these prompts, and at which it writes some tokens to each."""
    torch.set_num_threads(max(1, job.threads // job.stage.process_count))
    tokens = sum(map(len, set(map(tuple, prompts)))) + MEASURED_TOKENS * len(prompts)
    model = shaped_model(job, name, most=flops_measured(job) / (2 * tokens)).eval()
    vocabulary = vocabulary_of(chat, model, name)
    engine = LocalEngine(model, vocabulary=vocabulary, batch=len(prompts), autocast=autocast_of(job))
    requests = [Request(prompt, Sampling(1.0, MEASURED_TOKENS, ()), seed) for seed, prompt in enumerate(prompts)]
    for _ in range(2):  # the first lays out memory, and captures graphs
        engine.timings.prefill = engine.timings.decode = 0.0
        complete(engine, requests)
    cost, added = Cost.of(model), MEASURED_TOKENS - 1
    read = sum(cost.forward([len(prompt)], 1) for prompt in set(map(tuple, prompts)))
    wrote = sum(cost.forward([len(p) + added], 1 + added) - cost.forward([len(p)], 1) for p in prompts)
    return {"forward": read / engine.timings.prefill, "decode": wrote / engine.timings.decode}


def measured_rate(job: Job, step: Callable[[], float]) -> float:
    """Return the FLOP/s of the second call of `step`, which returns the FLOPs that it took.

    With one thread of a CPU the processor's time counts, which other programs change little.
    """
    torch.set_num_threads(max(1, job.threads // job.stage.process_count))
    step()
    clock = time.process_time if job.device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    flops = step()
    if job.device == "cuda":
        torch.cuda.synchronize()
    return flops / (clock() - started)


def flops_measured(job: Job) -> float:
    """Return the FLOPs that a calibration computes for one rate, about."""
    return CPU_FLOPS if job.device == "cpu" else GPU_FLOPS


def shape_of(job: Job, name: str) -> dict[str, Any]:
    """Return what the speed of a model depends on beside the machine: its sizes, number format and threads."""
    spec = job.recipe.first_model(name)
    how = {"dtype": job.dtype, "threads": job.threads}
    if spec.new is not None:
        return spec.new.model_dump() | how
    config = load_config(job.inputs[name], spec.revision).get_text_config()
    sizes = {key: value for key, value in config.to_dict().items() if type(value) is int and "token_id" not in key}
    return {"family": config.model_type} | sizes | how


def rounded(count: float) -> int:
    """Return a power of two of at least `count`: sizes that are alike run equally fast."""
    return 1 << max(0, round(count) - 1).bit_length()
