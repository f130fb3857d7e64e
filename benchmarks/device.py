"""A model on a device: exported as GGUF files, scored beside the model, and timed in llama.cpp.

    pip install 'smallwit[device]'
    python benchmarks/device.py                                    # the quickstart's student
    python benchmarks/device.py FOLDER --suites humaneval,gsm8k --limit 200 --max-new-tokens 512 --original FILE.gguf

For each number format: what `smallwit export --verify` prints, and tokens a second and peak memory of llama.cpp at one
and at eight rows, if it is installed. With `--original` the keys and tensors of the file are compared with those of
another GGUF file.
"""

import argparse
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

from smallwit.cli import main as smallwit
from smallwit.device import cores
from smallwit.export.llama_cpp import LlamaCppEngine, installed
from smallwit.inference.engine import Request, Sampling, complete
from smallwit.models.gguf_file import GgufFile
from smallwit.models.gguf_tokenizer import read_tokenizer
from smallwit.tasks.wordmath import WordMath

ROWS = (1, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="runs/quickstart:rl")
    parser.add_argument("--out", type=Path, default=Path("device"))
    parser.add_argument("--quants", default="q8_0,q4_0")
    parser.add_argument("--suites", default="wordmath,algebra,functions")
    parser.add_argument("--limit", default="500")
    parser.add_argument("--max-new-tokens", default="70")
    parser.add_argument("--batch", default="64", help="sequences in flight (64)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of what is computed here")
    parser.add_argument("--tokens", type=int, default=64, help="of a reply that is timed")
    parser.add_argument("--original", type=Path)
    parser.add_argument("--data-dir")
    options = parser.parse_args()
    data = ["--data-dir", options.data_dir] if options.data_dir else []
    suites = ["--verify", options.suites] if options.suites else []
    choice = ["--limit", options.limit, "--max-new-tokens", options.max_new_tokens]
    choice += ["--batch", options.batch, "--dtype", options.dtype]
    for quant in options.quants.split(","):
        out = options.out / quant
        words = ["export", options.model, str(out), "--quant", quant, *suites, *data, *choice]
        if smallwit(words):
            sys.exit(1)
        for rows in ROWS if installed() else ():
            print_speed(out / f"model-{quant}.gguf", rows, options.tokens)
    if options.original is not None:
        compare_files(out / f"model-{quant}.gguf", options.original)


def print_speed(file: Path, rows: int, tokens: int) -> None:
    header = GgufFile(file)
    tokenizer, _ = read_tokenizer(header)
    context = int(header.need(f"{header.architecture}.context_length"))
    engine = LlamaCppEngine(file, context=context, batch=rows, threads=cores())
    prompts = [tokenizer(each.prompt)["input_ids"] for each in islice(WordMath().problems("test"), rows)]
    complete(engine, [Request(prompt, Sampling(0.0, tokens, ())) for prompt in prompts])
    spent = engine.spent
    # All rows are written at once, so the time of one is that of all.
    speed = spent.tokens / (spent.seconds / rows)
    told = f"{speed:,.1f} tokens/s, {spent.peak_memory_gb:.2f} GB"
    print(f"llama.cpp, {file.name}, {rows} rows, {cores()} threads: {told}")


def compare_files(ours: Path, original: Path) -> None:
    """Print what only one of two files has, and the keys whose values differ."""
    a, b = GgufFile(ours), GgufFile(original)
    keys = {name: set(file.keys("")) for name, file in (("ours", a), ("original", b))}
    print(f"only in {original}: {', '.join(sorted(keys['original'] - keys['ours']))}")
    print(f"only in {ours}: {', '.join(sorted(keys['ours'] - keys['original']))}")
    for key in sorted(keys["ours"] & keys["original"]):
        one, other = a.get(key), b.get(key)
        if one != other:
            print(f"{key}: {_brief(one)} here, {_brief(other)} in the original{_parted(one, other)}")
    for name, file in (("ours", a), ("original", b)):
        print(f"tensors, {name}: {dict(Counter(map(file.kind, file.tensors)))}")
    print(f"tensors of one file alone: {', '.join(sorted(a.tensors.keys() ^ b.tensors.keys())) or 'none'}")


def _brief(value: Any) -> str:
    return f"{len(value):,} entries" if isinstance(value, list) else repr(value)[:60]


def _parted(one: Any, other: Any) -> str:
    if not isinstance(one, list) or not isinstance(other, list):
        return ""
    differing = [place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]]
    first = differing[0] if differing else min(len(one), len(other))
    return f"; {len(differing):,} differ, the first at {first}: {one[first : first + 1]} and {other[first : first + 1]}"


if __name__ == "__main__":
    main()
