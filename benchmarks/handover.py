"""Published folders as other readers see them: `make check-handover`.

Tiny models are published as a train stage does it, then read by transformers alone, in a clean process: the pinned
version, and with `--old PYTHON` the one of that interpreter. Ids and greedy text must be equal to smallwit's own, and
log-probs to within rounding. The environment variable SMALLWIT_DATA_DIR gives Qwen2's own tokenizer to its families.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from handover_cases import FAMILIES, PROMPTS, publish
from smallwit.inference.generator import Decoding
from smallwit.inference.local import LocalEngine
from smallwit.inference.local_generator import LocalGenerator
from smallwit.models.chat import ChatTokenizer
from smallwit.models.loading import load_model
from smallwit.tasks.prompt import Prompt

READER = Path(__file__).with_name("handover_reader.py")
NEW_TOKENS = 16
TOLERANCE = 2e-4
"""Largest difference of a log-prob between two versions' float32 kernels; a wrong position base gives over 0.1."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--old", metavar="PYTHON", help="interpreter of an environment with transformers 4.57")
    interpreters = [sys.executable, *filter(None, [parser.parse_args().old])]
    data = os.environ.get("SMALLWIT_DATA_DIR")
    qwen2 = Path(data) / "qwen2_tokenizer" if data and (Path(data) / "qwen2_tokenizer").is_dir() else None
    with tempfile.TemporaryDirectory() as place:
        folders, notes = {}, {}
        for name, dtype in [("smallwit", "float32"), ("smallwit", "bfloat16"), *((f, "float32") for f in FAMILIES)]:
            label = name if dtype == "float32" else f"{name}, {dtype}"
            folders[label] = Path(place) / label.replace(", ", "-")
            notes[label] = publish(name, folders[label], qwen2, dtype)
        own = {label: own_reading(folder) for label, folder in folders.items()}
        read = [readings(python, list(folders.values()), Path(place)) for python in interpreters]
    return table(folders, own, read, notes)


def own_reading(folder: Path) -> list[dict[str, Any]]:
    """Return ids and greedy reply of each prompt by smallwit's own parts."""
    chat, model = ChatTokenizer.load(folder), load_model(folder, dtype="float32", device="cpu")
    engine = LocalEngine(model, vocabulary=len(chat.tokenizer))
    generator = LocalGenerator(engine, chat)
    prompts = [Prompt(messages=({"role": "user", "content": prompt},)) for prompt in PROMPTS]
    decoding = Decoding(0.0, NEW_TOKENS)
    replies = generator.reply(prompts, decoding, [0] * len(prompts))
    bare = chat.tokenizer(PROMPTS, add_special_tokens=False)["input_ids"]
    encoded = generator.encode(prompts, decoding)
    return [
        {"bare": text, "ids": ids, "reply": reply.text} for text, ids, reply in zip(bare, encoded, replies, strict=True)
    ]


def readings(python: str, folders: list[Path], place: Path) -> dict[str, Any]:
    """Return what transformers of an interpreter reads in the folders, with nothing of smallwit on its path."""
    asked, out = place / "asked.json", place / "read.json"
    asked.write_text(json.dumps({"folders": [str(f) for f in folders], "prompts": PROMPTS, "new_tokens": NEW_TOKENS}))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    subprocess.run([python, "-W", "ignore", str(READER), str(asked), str(out)], check=True, env=environment)
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def differences(own: list[dict[str, Any]], read: dict[str, Any], pinned: dict[str, Any]) -> tuple[str, bool]:
    """Return one cell of the table, and whether it is as it should be."""
    if "error" in read:
        return read["error"][:60], False
    if any(one[key] != other[key] for one, other in zip(own, read["rows"], strict=True) for key in ("bare", "ids")):
        return f"other ids ({read['tokenizer']})", False
    texts = sum(one["reply"] == other["reply"] for one, other in zip(own, read["rows"], strict=True))
    gaps = [
        abs(a - b)
        for one, other in zip(read["rows"], pinned["rows"], strict=True)
        if one["ids"] == other["ids"]
        for a, b in zip(one["log_probs"], other["log_probs"], strict=False)
    ]
    told = f", log-probs {max(gaps):.0e}" if gaps else ""
    return f"ids equal, text {texts}/{len(own)}{told}", texts == len(own) and max(gaps, default=0.0) <= TOLERANCE


def table(
    folders: dict[str, Path],
    own: dict[str, list[dict[str, Any]]],
    read: list[dict[str, Any]],
    notes: dict[str, list[str]],
) -> int:
    """Print the table of docs/handover.md; return 0 if every folder is read as smallwit reads it or was told of."""
    print(
        "| folder | " + " | ".join(f"transformers {each['transformers']}" for each in read) + " | said when published |"
    )
    print("| --- " * (len(read) + 2) + "|")
    failed = []
    for label, folder in folders.items():
        pinned = read[0]["folders"][str(folder)]
        cells = [differences(own[label], each["folders"][str(folder)], pinned) for each in read]
        said = "; ".join(notes[label])
        print(f"| {label} | " + " | ".join(cell for cell, _ in cells) + f" | {said} |", flush=True)
        if not said and not all(good for _, good in cells):
            failed.append(label)
    print(f"\nnot read as they are, and nothing was said: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
