"""Stored teachers: the top-k log-probs of a teacher on disk, for distillation without the teacher.

A store holds, for each completion token of each example, the ids of the teacher's k likeliest tokens, their log-probs
and the log of the mass of all others, at one temperature. The key of an example is a hash of its tokens and of which of
them are trained. So another text, or another tokenization of it, is not found and is refused.

    store.json          what the store was made with: k, temperature, vocabulary, tokenizer, teacher
    index_00000.npy     for each example of the shard its hash (16 bytes) and its number of tokens, in the shard's order
    shard_00000.npy     one record a token: k ids (2 bytes, and 4 bits more above 65,536 tokens), k log-probs and the
                        tail's (2 bytes each, in steps of 1/2048 nat): 290 bytes a token at k = 64, or 258
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from smallwit.errors import UserError
from smallwit.objectives.batch import Example
from smallwit.objectives.teacher import TopK

STORE_FILE = "store.json"
STEPS_PER_NAT = 2048
MOST_TOKENS = 1 << 20
"""Tokens of the largest vocabulary: ids have 20 bits."""
_INDEX = np.dtype([("key", "S16"), ("tokens", "<u4")])


class NoNumbers(ValueError):
    """A teacher's log-probs are NaN."""


@dataclass(frozen=True)
class StoreBinding:
    """What a store was made with: `vocabulary` real tokens; `tokenizer` is the hash of its tokens and ids."""

    teacher: str
    tokenizer: str
    vocabulary: int
    k: int
    temperature: float
    schema: int = 1


def example_key(example: Example) -> bytes:
    """Return 16 bytes that depend only on the example's tokens and on which of them are trained."""
    content = np.array([example.prompt_length, *example.tokens], dtype="<u4").tobytes()
    if example.trained is not None:
        content += b"trained" + np.array(example.trained, dtype="<u4").tobytes()
    # The last byte is never 0, which numpy would take for padding and drop.
    digest = hashlib.blake2b(content, digest_size=15).digest()
    return digest + b"\x01"


def _record(k: int, vocabulary: int) -> np.dtype[np.void]:
    high = [("high", "u1", ((k + 1) // 2,))] if vocabulary > 1 << 16 else []
    return np.dtype([("low", "<u2", (k,)), *high, ("log_probs", "<u2", (k,)), ("log_tail", "<u2")])


def pack(top: TopK) -> NDArray[np.void]:
    """Return the records `[N]` of N tokens. Log-probs are rounded to 1/2048 nat and bounded by -32 nats.

    Raises `NoNumbers` for log-probs that are NaN: a record cannot hold NaN, and would read as certain.
    """
    if top.holds_nan():
        raise NoNumbers("log-probs that are no numbers (NaN)")
    ids = top.ids.cpu().numpy().astype(np.uint32)
    records = np.zeros(len(ids), _record(ids.shape[1], top.vocabulary))
    records["low"] = ids & 0xFFFF
    if top.vocabulary > 1 << 16:
        high = np.pad(ids >> 16, ((0, 0), (0, ids.shape[1] % 2))).astype(np.uint8)
        records["high"] = high[:, 0::2] | high[:, 1::2] << 4
    records["log_probs"] = _steps(top.log_probs)
    records["log_tail"] = _steps(top.log_tail)
    return records


def _steps(log_probs: torch.Tensor) -> NDArray[np.uint16]:
    steps = (log_probs.float() * -STEPS_PER_NAT).round_().clamp_(0, 0xFFFF)
    return steps.cpu().numpy().astype(np.uint16)


def unpack(records: NDArray[np.void], vocabulary: int, temperature: float, device: torch.device) -> TopK:
    """Return what `pack` was given, up to its rounding. The k + 1 probabilities of a token add up to 1 again."""
    ids = records["low"].astype(np.int64)
    if vocabulary > 1 << 16:
        high = records["high"].astype(np.int64)
        ids[:, 0::2] |= (high & 0xF) << 16
        ids[:, 1::2] |= (high[:, : ids.shape[1] // 2] >> 4) << 16
    steps = np.concatenate([records["log_probs"], records["log_tail"][:, None]], 1).astype(np.float32)
    log_q = torch.log_softmax(torch.from_numpy(steps).to(device) / -STEPS_PER_NAT, 1)
    return TopK(torch.from_numpy(ids).to(device), log_q[:, :-1], log_q[:, -1], vocabulary, temperature)


def write_shard(folder: Path, number: int, examples: Sequence[Example], records: NDArray[np.void]) -> None:
    """Write the shard of these examples; `records` are those of their trained tokens, one example after the other."""
    index = np.array([(example_key(example), example.targets) for example in examples], dtype=_INDEX)
    np.save(folder / f"index_{number:05d}.npy", index)
    np.save(folder / f"shard_{number:05d}.npy", records)


def write_binding(folder: Path, binding: StoreBinding) -> None:
    """Write what the store in `folder` was made with."""
    (folder / STORE_FILE).write_text(json.dumps(asdict(binding), indent=1))


class StoredTeacher:
    """A store in a folder, as a teacher. Shards are memory-mapped."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.binding = StoreBinding(**json.loads((folder / STORE_FILE).read_text()))
        self.shards = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("shard_*.npy"))]
        self.places: dict[bytes, tuple[int, int, int]] = {}
        for number, path in enumerate(sorted(folder.glob("index_*.npy"))):
            index = np.load(path)
            ends = index["tokens"].cumsum(dtype=np.int64)
            rows = zip(index["key"].tolist(), (ends - index["tokens"]).tolist(), ends.tolist(), strict=True)
            self.places |= {key: (number, start, end) for key, start, end in rows}

    def distribution(self, examples: Sequence[Example], device: torch.device) -> tuple[TopK, float, int]:
        """Return the distributions for the trained tokens, example by example; 0 FLOPs; 0 tokens.

        Raises `UserError` for an example that the store does not have.
        """
        parts = []
        for example in examples:
            place = self.places.get(example_key(example))
            if place is None:
                raise UserError(
                    f"the store of teacher_logprobs stage '{self.name}' does not have an example of "
                    f"{len(example.tokens)} tokens of this source: "
                    "its text, tokenizer or length limit differs from what was stored; "
                    "let both stages read the same demonstrations, or name the model as teacher"
                )
            number, start, end = place
            parts.append(self.shards[number][start:end])
        top = unpack(np.concatenate(parts), self.binding.vocabulary, self.binding.temperature, device)
        return top, 0.0, 0
