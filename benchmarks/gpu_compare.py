"""What `benchmarks/gpu.py` holds its parts to: losses, scores and resumed weights against the CPU's, within bounds."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench import Result, compare
from gpu_recipes import FIXED_TOKENS, OWN_TOKENS

LOSS = {"float32": 1e-3, "bfloat16": 0.05}
"""Largest relative difference of a step's loss, or entropy, to the CPU's in float32. In bf16 the weights part step by
step: on an H200 it was up to 0.017 in SFT and 0.032 in distillation, whose losses are small."""

SMALL_LOSS = 0.1
"""A difference is taken relative to the CPU's loss or to this, whichever is larger: some losses are almost 0."""

SCORE = {"float32": 0.02, "bfloat16": 0.05}
"""Largest difference of a score: two and five of the 100 problems."""

RESUMED = 1e-3
"""Norm of the difference of resumed and uninterrupted weights, as a share of the weights' norm. Lost moments of the
optimizer would make it about 1e-2."""

BOUND = "bound"

MFU_CASE = "4x4096"
DECODE_CASE = "batch 512"

Parts = Mapping[str, Mapping[str, Any]]


def comparisons(parts: Parts) -> list[Result]:
    """Return every comparison that the parts' numbers allow. "peer" is the bound, or transformers' `generate`."""
    found: list[Result] = []
    reference = parts.get("recipe-cpu")
    for dtype in ("float32", "bfloat16"):
        ours = parts.get(f"recipe-{dtype}")
        if reference and ours:
            found += _recipes(reference, ours, dtype)
        resumed = parts.get(f"resume-{dtype}")
        if resumed:
            found += [
                _bounded(f"0-resume-{dtype}-{stage}", "weights", _resumed(resumed[stage])) for stage in ("sft", "rl")
            ]
    losses = parts.get("sft", {}).get("loss")
    if losses:
        gap = _largest([losses["float32"]], [losses["bfloat16"]])
        found.append(_bounded("0-sft-0.5B-bfloat16", "loss", (gap, LOSS["bfloat16"])))
    found += _shares(parts)
    for case, numbers in parts.get("decode", {}).items():
        if "generate_tokens_per_second" in numbers:
            ours, theirs = numbers["tokens_per_second"], numbers["generate_tokens_per_second"]
            found.append(
                compare(
                    f"0-decode {case}",
                    "tokens/s",
                    "tokens/s",
                    "higher",
                    ours=ours,
                    peer=theirs,
                    peer_name="transformers generate",
                    target=1.0,
                )
            )
    return found


def _shares(parts: Parts) -> list[Result]:
    """Training against the measured rate of matrix products, and decoding against what memory traffic alone takes."""
    found = []
    machine = parts.get("machine", {})
    rate = machine.get("matrix_tflops", {}).get("bfloat16")
    long = parts.get("sft", {}).get(MFU_CASE)
    if rate and long:
        found.append(
            compare(
                f"gpu-sft {MFU_CASE}",
                "matrix rate",
                "TFLOP/s",
                "higher",
                ours=long["tflops"],
                peer=rate,
                peer_name="products alone",
                target=0.45,
            )
        )
    bandwidth = machine.get("copy_gb_per_second")
    numbers = parts.get("decode", {}).get(DECODE_CASE)
    if bandwidth and numbers:
        found.append(
            compare(
                f"gpu-decode {DECODE_CASE}",
                "bandwidth",
                "GB/s",
                "higher",
                ours=numbers["bytes_per_token_step"] / numbers["seconds_per_token"] / 1e9,
                peer=bandwidth,
                peer_name="copies alone",
                target=0.4,
            )
        )
    return found


def _recipes(reference: Mapping[str, Any], ours: Mapping[str, Any], dtype: str) -> list[Result]:
    """Losses of every step, and scores. Tokens that were sampled in bf16 are others: such stages are not compared."""
    found = []
    for stage in FIXED_TOKENS if dtype == "bfloat16" else (*FIXED_TOKENS, *OWN_TOKENS):
        one, other = reference["series"][stage], ours["series"][stage]
        for name in ("loss", "entropy"):
            if name in one:
                gap = _largest(one[name], other[name])
                found.append(_bounded(f"0-recipe-{dtype}-{stage}", name, (gap, LOSS[dtype])))
    for model, score in reference["scores"].items():
        if dtype == "float32" or model in FIXED_TOKENS:
            gap = round(abs(score - ours["scores"][model]), 6)  # of a hundred problems: 0.8 - 0.78 is 0.02, and no more
            found.append(_bounded(f"0-recipe-{dtype}-{model}", "score", (gap, SCORE[dtype])))
    return found


def _resumed(stage: Mapping[str, Any]) -> tuple[float, float]:
    """How far resumed weights are off, and how far they may be. Where two whole runs differ by more than the bound, by
    tokens that were sampled otherwise, nothing closer can be asked of a resumed one."""
    return stage["resumed"], max(RESUMED, 3 * stage["repeated"])


def _largest(reference: Sequence[float], ours: Sequence[float]) -> float:
    """The largest relative difference of any step."""
    rows = zip(reference, ours, strict=True)
    return max(abs(a - b) / max(abs(a), SMALL_LOSS) for a, b in rows)


def _bounded(case: str, metric: str, difference: tuple[float, float]) -> Result:
    gap, bound = difference
    return compare(case, metric, "difference", "lower", ours=gap, peer=bound, peer_name=BOUND, target=1.0)
