"""Parts of `benchmarks/gpu.py` that measure speed and memory on models with random weights, made in the process."""

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from typing import Any

import torch
from transformers import PreTrainedModel

from gpu_sizes import FULL, TINY, Sizes
from smallwit.device import cores, speed_up_products
from smallwit.inference.engine import Request, Sampling, complete
from smallwit.inference.local import LocalEngine
from smallwit.inference.slot_cache import bytes_per_token
from smallwit.models.build import new_model
from smallwit.models.tokenizer_training import train_tokenizer
from smallwit.objectives.advantages import group_advantages
from smallwit.objectives.batch import Example
from smallwit.objectives.kinds.cross_entropy import CrossEntropyLoss
from smallwit.objectives.kinds.group_algorithms import GRPO
from smallwit.objectives.loss import LossTerm
from smallwit.objectives.policy_loss import PolicyGradientLoss
from smallwit.training.loop import Trainer, TrainingBudget
from smallwit.training.settings import Optimizer
from smallwit.training.sources import StepBatch, TokenSource

Numbers = dict[str, Any]

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 FLOP/s by the makers' data sheets (SXM), by a part of the device's name."""

LOGIT_SCALE = 12.0
"""Standard deviation of the last norm's random weights. It makes logits as large as a trained model's (up to about 32),
where bf16 rounds them as coarsely: with weights of 1 they are below 3, and the sampler's error would look ten times
smaller. Random signs keep a model with a tied table from repeating its input."""


class Bench:
    """The device, the sizes, and what both share."""

    def __init__(self, device: str, sizes: Sizes) -> None:
        self.device, self.sizes = torch.device(device), sizes
        self.cuda = device == "cuda"

    def synchronize(self) -> None:
        """Wait until the device has done all that was asked of it."""
        if self.cuda:
            torch.cuda.synchronize()

    @contextmanager
    def timed(self, into: list[float]) -> Iterator[None]:
        """Append the seconds of the block."""
        self.synchronize()
        started = time.perf_counter()
        yield
        self.synchronize()
        into.append(time.perf_counter() - started)

    def forget_peak(self) -> None:
        """Let the peak of memory begin at what is allocated now."""
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_gb(self) -> float | None:
        """Return the largest memory allocated on the GPU, in 1e9 bytes."""
        return torch.cuda.max_memory_allocated() / 1e9 if self.cuda else None

    def mfu(self, flops_per_second: float) -> float | None:
        """Return the share of the device's dense bf16 rate, where it is known."""
        name = torch.cuda.get_device_name() if self.cuda else ""
        peak = next((rate for part, rate in PEAKS.items() if part in name), None)
        return flops_per_second / peak if peak else None

    def model(self) -> PreTrainedModel:
        """Return a model of random float32 weights."""
        model = new_model(**self.sizes.shape, tokenizer=train_tokenizer(["a b c"], 300), seed=0)  # type: ignore[arg-type]
        with torch.no_grad():
            model.model.norm.weight.normal_(std=LOGIT_SCALE, generator=torch.Generator().manual_seed(0))
        return model.to(self.device)  # type: ignore[arg-type]

    def tokens(self, rows: int, length: int, seed: int = 0) -> list[list[int]]:
        """Return random token ids `[rows, length]`."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(16, self.sizes.vocabulary, (rows, length), generator=generator).tolist()

    def trainer(
        self,
        model: PreTrainedModel,
        source: TokenSource,
        objective: LossTerm,
        *,
        autocast: bool = True,
        pack: int | None,
    ) -> Trainer:
        """Return the loop over one source, in bf16 autocast or in float32."""
        return Trainer(
            model.train(),
            {"rows": source},
            [objective],
            teachers={},
            optimizer=Optimizer(lr=1e-6, warmup=0, schedule="constant"),
            budget=TrainingBudget(steps=100),
            vocabulary=self.sizes.vocabulary,
            pad=0,
            micro_tokens=self.sizes.micro_tokens,
            pack=pack,
            seed=0,
            autocast=torch.bfloat16 if autocast else None,
        )

    def sampling(self, new_tokens: int) -> Sampling:
        """Return how completions of exactly so many tokens are drawn: the token that would end one is never drawn."""
        return Sampling(1.0, new_tokens, (self.sizes.vocabulary,))

    def engine(self, model: PreTrainedModel, batch: int) -> LocalEngine:
        """Return the local engine in bf16 autocast."""
        return LocalEngine(model, vocabulary=self.sizes.vocabulary, batch=batch, autocast=torch.bfloat16)


class Recorded:
    """A source that gives the same examples at every step."""

    def __init__(self, examples: list[Example]) -> None:
        self.examples = examples

    def batch(self, step: int) -> StepBatch:
        return StepBatch(self.examples)


def machine(bench: Bench) -> Iterator[Numbers]:
    """The machine, the versions, and the rates of matrix products and of copies that it reaches here."""
    facts: Numbers = {"python": platform.python_version(), "cores": cores(), "machine": platform.machine()}
    for package in ("torch", "transformers", "tokenizers", "peft", "numpy", "huggingface_hub"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = None
    if bench.cuda:
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "gpu": properties.name,
            "gpu_memory_gb": properties.total_memory / 1e9,
            "multiprocessors": properties.multi_processor_count,
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
        }
    yield facts
    size = bench.sizes.matrix
    rates = {}
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32), ("TF32", torch.float32)):
        torch.backends.cuda.matmul.allow_tf32 = name == "TF32"
        left, right = (torch.randn(size, size, device=bench.device).to(dtype) for _ in range(2))
        seconds: list[float] = []
        for _ in range(4):
            with bench.timed(seconds):
                for _ in range(5):
                    left @ right
        rates[name] = 5 * 2 * size**3 / min(seconds) / 1e12
    yield {"matrix_tflops": rates}
    block = torch.empty(size * size, device=bench.device)
    seconds = []
    for _ in range(5):
        with bench.timed(seconds):
            block.clone()
    yield {"copy_gb_per_second": 2 * block.numel() * 4 / min(seconds) / 1e9}


def sft(bench: Bench) -> Iterator[Numbers]:
    """SFT: tokens a second, memory and MFU of each case; the losses of the same rows in float32 and bf16."""
    model = bench.model()
    objective = CrossEntropyLoss("cross_entropy", "rows", 1.0)
    few = Recorded([Example(row, 0) for row in bench.tokens(2, min(256, bench.sizes.micro_tokens // 2))])
    losses = {}
    for name, autocast in (("float32", False), ("bfloat16", True)):
        torch.backends.cuda.matmul.allow_tf32 = autocast
        # Of the same weights: a step changes them.
        losses[name] = bench.trainer(bench.model(), few, objective, autocast=autocast, pack=None).step()["loss"]
    yield {"loss": losses}
    for case, (rows, width, pack) in bench.sizes.sft.items():
        examples = [Example(row, 0) for row in bench.tokens(rows, width)]
        if pack:  # four examples of unlike lengths in a row
            cuts = [0, width // 8, width // 4, width // 2, width]
            pieces = [row.tokens[a:b] for row in examples for a, b in pairwise(cuts)]
            examples = [Example(piece, 0) for piece in pieces]
        yield {case: _steps(bench, model, examples, objective, pack)}
    if bench.cuda:  # what the head's products would cost without TF32
        torch.backends.cuda.matmul.allow_tf32 = False
        case, (rows, width, _) = next(iter(bench.sizes.sft.items()))
        examples = [Example(row, 0) for row in bench.tokens(rows, width)]
        yield {f"{case} float32 head": _steps(bench, model, examples, objective, None)}


def _steps(
    bench: Bench, model: PreTrainedModel, examples: list[Example], objective: LossTerm, pack: int | None
) -> Numbers:
    trainer = bench.trainer(model, Recorded(examples), objective, pack=pack)
    trainer.step()
    bench.forget_peak()
    flops, seconds, losses = trainer.progress.flops, [], []
    for _ in range(bench.sizes.steps):
        with bench.timed(seconds):
            losses.append(trainer.step()["loss"])
    step = statistics.median(seconds)
    rate = (trainer.progress.flops - flops) / bench.sizes.steps / step
    tokens = sum(len(example.tokens) for example in examples)
    return {
        "tokens_per_second": tokens / step,
        "step_seconds": step,
        "tflops": rate / 1e12,
        "mfu": bench.mfu(rate),
        "peak_memory_gb": bench.peak_gb(),
        "loss": losses[-1],
    }


def decode(bench: Bench) -> Iterator[Numbers]:
    """Sampling with log-probs in bf16: with graphs and without, and what memory traffic alone would take; then the same
    prompts by transformers' `generate`."""
    sizes, model = bench.sizes, bench.model().eval().to(torch.bfloat16)  # type: ignore[arg-type]
    engines = {batch: bench.engine(model, batch) for batch in sizes.decode}
    for batch, engine in engines.items():
        _generated(bench, engine, batch, 4)
        # Graphs of all lengths are captured once in a run.
        numbers = _generated(bench, engine, batch, sizes.new_tokens)
        yield {f"batch {batch}, first": numbers}
        numbers = _generated(bench, engine, batch, sizes.new_tokens)
        yield {f"batch {batch}": numbers | {"bytes_per_token_step": _step_bytes(bench, model, batch)}}
    batch = sizes.decode[0]
    eager = bench.engine(model, batch)
    eager.graphed = False
    yield {f"batch {batch}, no graphs": _generated(bench, eager, batch, sizes.peer_tokens)}
    ours = _generated(bench, engines[batch], batch, sizes.peer_tokens)
    prompts = torch.tensor(bench.tokens(batch, sizes.prompt), device=bench.device)
    model.set_attn_implementation("sdpa")  # its `generate` makes masks of padding
    seconds: list[float] = []
    for new_tokens in (4, sizes.peer_tokens):
        with bench.timed(seconds), torch.no_grad():
            model.generate(  # type: ignore[operator]
                prompts,
                attention_mask=torch.ones_like(prompts),
                do_sample=True,
                top_k=0,
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                pad_token_id=0,
            )
    theirs = batch * sizes.peer_tokens / seconds[-1]
    yield {
        f"batch {batch} against generate": {
            "tokens_per_second": ours["tokens_per_second"],
            "generate_tokens_per_second": theirs,
        }
    }


def _step_bytes(bench: Bench, model: PreTrainedModel, batch: int) -> float:
    """Return the bytes that a decoded step has to read: all weights, and the keys and values of the mean length."""
    weights = sum(parameter.nbytes for parameter in model.parameters())
    length = bench.sizes.prompt + bench.sizes.new_tokens / 2
    return weights + batch * length * bytes_per_token(model.config, model.dtype.itemsize)


def _generated(bench: Bench, engine: LocalEngine, batch: int, new_tokens: int) -> Numbers:
    prompts, seconds = bench.tokens(batch, bench.sizes.prompt), []
    bench.forget_peak()
    with bench.timed(seconds):
        sampling = bench.sampling(new_tokens)
        found = complete(engine, [Request(prompt, sampling, seed) for seed, prompt in enumerate(prompts)])
    tokens = sum(len(completion.tokens) for completion in found)
    return {
        "tokens_per_second": tokens / seconds[0],
        "seconds": seconds[0],
        "seconds_per_token": seconds[0] / new_tokens,
        "peak_memory_gb": bench.peak_gb(),
    }


class Rollouts:
    """A source of the model's own completions with rewards from a seed, and the advantages of their groups."""

    def __init__(self, bench: Bench, model: PreTrainedModel) -> None:
        self.bench = bench
        self.engine = bench.engine(model, bench.sizes.prompts * bench.sizes.group)
        self.seconds: list[float] = []

    def batch(self, step: int) -> StepBatch:
        sizes = self.bench.sizes
        prompts = [row for row in self.bench.tokens(sizes.prompts, sizes.prompt, step) for _ in range(sizes.group)]
        sampling = self.bench.sampling(sizes.rollout_tokens)
        with self.bench.timed(self.seconds):
            found = complete(
                self.engine, [Request(prompt, sampling, step * len(prompts) + i) for i, prompt in enumerate(prompts)]
            )
        rewards = torch.rand(sizes.prompts, sizes.group, generator=torch.Generator().manual_seed(step))
        advantages = group_advantages(rewards).flatten().tolist()
        rows = zip(prompts, found, advantages, strict=True)
        return StepBatch([Example(p + c.tokens, len(p), c.log_probs, advantage) for p, c, advantage in rows])


def grpo(bench: Bench) -> Iterator[Numbers]:
    """A GRPO step of the real loop: rollouts, then the update; and how far sampler's and trainer's log-probs differ."""
    model = bench.model()
    source = Rollouts(bench, model)
    trainer = bench.trainer(model, source, PolicyGradientLoss("grpo", "rows", 1.0, algorithm=GRPO.make()), pack=None)
    sizes = bench.sizes
    for _ in range(2):  # the second is the one that counts; the first is printed lest a short limit leave nothing
        bench.forget_peak()
        flops, seconds = trainer.progress.flops, []
        with bench.timed(seconds):
            metrics = trainer.step()
        update = seconds[0] - source.seconds[-1]
        rate = (trainer.progress.flops - flops) / update
        sampled = sizes.prompts * sizes.group * sizes.rollout_tokens
        yield {
            "step_seconds": seconds[0],
            "rollout_seconds": source.seconds[-1],
            "update_seconds": update,
            "sampled_tokens_per_second": sampled / source.seconds[-1],
            "update_tokens_per_second": sizes.prompts * sizes.group * (sizes.rollout_tokens + sizes.prompt) / update,
            "step_tokens_per_second": sampled / seconds[0],
            "update_mfu": bench.mfu(rate),
            "peak_memory_gb": bench.peak_gb(),
            "sampler_gap": metrics["sampler_gap"],
            "ratio": metrics["ratio"],
            "entropy": metrics["entropy"],
        }


PARTS: dict[str, Callable[[Bench], Iterator[Numbers]]] = {
    "machine": machine,
    "sft": sft,
    "decode": decode,
    "grpo": grpo,
}


def main() -> None:
    """Measure one part; each line of the output that is JSON adds to its numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--device", required=True)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", cores())))
    speed_up_products(arguments.device, "bfloat16")
    for numbers in PARTS[arguments.part](Bench(arguments.device, TINY if arguments.tiny else FULL)):
        print(json.dumps(numbers), flush=True)


if __name__ == "__main__":
    main()
