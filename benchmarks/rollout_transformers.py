"""transformers' side of `make bench-rollout`: CASE FOLDER DATA_DIR METHOD BATCH PROMPTS CUT TOKENS.

The first PROMPTS of the case, the last CUT tokens of each, get up to TOKENS.

METHOD is `generate`, on batches of prompts of like length padded on the left, or `generate_batch`, transformers'
continuous batching with so many sequences at a time. Attention is sdpa, the fastest of both on a CPU. Padding and what
stands behind an end do not count as tokens.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from rollout_cases import CASES, prompts_of
from smallwit.models.chat import ChatTokenizer

PAGE = 32
"""Tokens of a page of the continuous batching's cache."""
BATCH_TOKENS = 256
"""Tokens of one of its passes: its mask is a square of them."""


class Peer:
    """A model as transformers loads it, for sequences of at most `longest` tokens.

    Its `generation_config` has nothing but greedy decoding and the ends.
    """

    def __init__(self, folder: Path, chat: ChatTokenizer, longest: int, dtype: str) -> None:
        self.ends, self.pad, self.longest = set(chat.ends.all), chat.pad, longest
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
        model.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=list(chat.ends.all), pad_token_id=chat.pad
        )
        self.model = model.eval()

    @torch.no_grad()
    def generate(self, prompts: Sequence[Sequence[int]], batch: int, tokens: int) -> list[list[int]]:
        """Return the completions of `model.generate`, each up to its end."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        found: dict[int, list[int]] = {}
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            width = max(len(prompts[i]) for i in rows)
            padded = torch.tensor([[self.pad] * (width - len(prompts[i])) + list(prompts[i]) for i in rows])
            real = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in rows])
            written = self.model.generate(padded, attention_mask=real, max_new_tokens=tokens)[:, width:].tolist()
            found |= {i: self._ended(row) for i, row in zip(rows, written, strict=True)}
        return [found[i] for i in range(len(prompts))]

    def generate_batch(self, prompts: Sequence[Sequence[int]], batch: int, tokens: int) -> list[list[int]]:
        """Return the completions of `model.generate_batch`. Raises `RuntimeError` with what it says where it fails."""
        pages = -(-self.longest // PAGE) + 1
        config = ContinuousBatchingConfig(
            page_size=PAGE,
            # By default the cache takes nine tenths of the memory, and a CPU has to clear it.
            num_blocks=(batch + 1) * pages,
            max_batch_tokens=BATCH_TOKENS,
            max_requests_per_batch=batch,
        )
        outputs = self.model.generate_batch(
            [list(prompt) for prompt in prompts],
            generation_config=self.model.generation_config,
            continuous_batching_config=config,
            persistent_manager=True,
            max_new_tokens=tokens,
        )
        errors = [output.error for output in outputs.values() if output.error is not None]
        if errors or len(outputs) != len(prompts):
            raise RuntimeError(errors[0] if errors else f"{len(outputs)} of {len(prompts)} requests came back")
        return [self._ended(output.generated_tokens) for output in outputs.values()]

    def _ended(self, tokens: list[int]) -> list[int]:
        end = next((i + 1 for i, token in enumerate(tokens) if token in self.ends), len(tokens))
        return tokens[:end]


def main(name: str, folder: Path, data_dir: Path, method: str, batch: int, count: int, cut: int, tokens: int) -> None:
    """Complete the prompts; what comes before the clock warms up."""
    chat = ChatTokenizer.load(folder)
    case = CASES[name]
    prompts = [prompt[-cut:] for prompt in prompts_of(case, chat, data_dir)[:count]]
    peer = Peer(folder, chat, max(map(len, prompts)) + tokens, case.dtype)
    run = peer.generate if method == "generate" else peer.generate_batch
    run(prompts[:2], batch, 4)
    started = time.perf_counter()
    completions = run(prompts, batch, tokens)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "tokens": sum(map(len, completions)), "texts": completions}))


if __name__ == "__main__":
    name, folder, data_dir, method, *numbers = sys.argv[1:]
    batch, count, cut, tokens = map(int, numbers)
    main(name, Path(folder), Path(data_dir), method, batch, count, cut, tokens)
