"""Compare an imported model with llama.cpp on the file that it was made of.

    smallwit model import FILE.gguf FOLDER
    llama-server -m FILE.gguf --port 8080
    python benchmarks/gguf_parity.py FOLDER http://127.0.0.1:8080 --data-dir DATA

Printed are how many texts have the same ids, how many greedy replies are the same text, where the others part and how
near the two tokens are there by the imported model, and the difference of log-probs behind the first prompt.
"""

import argparse
import json
import math
import statistics
import urllib.request
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from smallwit.inference.engine import Request, Sampling, complete
from smallwit.inference.local import LocalEngine
from smallwit.inference.local_generator import encode
from smallwit.models.chat import ChatTokenizer
from smallwit.models.fit import vocabulary_of
from smallwit.models.handover import PROBES
from smallwit.tasks import load_task
from smallwit.tasks.prompt import Prompt
from smallwit.training.families import load_supported_model

TOP = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("url")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()
    chat = ChatTokenizer.load(options.folder.resolve())
    problems = list(load_task("gsm8k", data_dir=options.data_dir).problems("test"))[:200]
    compare_ids(chat, options.url, [*PROBES, *(f"{each.prompt}\n{each.solution}" for each in problems)])
    questions = [each.prompt for each in problems[: options.prompts]]
    prompts = [
        Prompt(({"role": "user", "content": text},)) if chat.template else Prompt(text=text) for text in questions
    ]
    compare_replies(options.folder, options.url, chat, encode(chat, prompts), options.tokens)


def ask(url: str, path: str, **content: Any) -> Any:
    request = urllib.request.Request(
        f"{url}/{path}", json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as reply:
        return json.load(reply)


def compare_ids(chat: ChatTokenizer, url: str, texts: list[str]) -> None:
    parted = []
    for text in texts:
        ours = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
        theirs = ask(url, "tokenize", content=text, parse_special=True)["tokens"]
        if ours != theirs:
            parted.append(text)
    print(f"same ids: {len(texts) - len(parted)} of {len(texts)} texts")
    for text in parted[:5]:
        print(f"  other ids: {text[:80]!r}")


@torch.no_grad()
def compare_replies(folder: Path, url: str, chat: ChatTokenizer, prompts: list[list[int]], count: int) -> None:
    model = load_supported_model(folder.resolve(), dtype="float32", device="cpu")
    engine = LocalEngine(model, vocabulary=vocabulary_of(chat, model, str(folder)), batch=len(prompts))
    sampling = Sampling(0.0, count, chat.ends.all, log_probs=False)
    completions = complete(engine, [Request(prompt, sampling) for prompt in prompts])
    ours = [[token for token in each.tokens if token not in chat.ends.all] for each in completions]
    del engine, model
    plain: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    greedy = {"temperature": 0.0, "n_predict": count, "return_tokens": True, "cache_prompt": False}
    same, where, gaps = 0, [], []
    for number, (prompt, mine) in enumerate(zip(prompts, ours, strict=True)):
        reply = ask(url, "completion", prompt=prompt, n_probs=TOP if number == 0 else 0, **greedy)
        theirs = [token for token in reply["tokens"] if token not in chat.ends.all]
        if number == 0:
            _compare_log_probs(plain, prompt, reply["completion_probabilities"][0]["top_logprobs"])
        if mine == theirs:
            same += 1
            continue
        first = next((at for at, pair in enumerate(zip(mine, theirs, strict=False)) if pair[0] != pair[1]), None)
        if first is None:
            where.append(min(len(mine), len(theirs)))
            continue
        scores = plain(torch.tensor([[*prompt, *mine[:first]]])).logits[0, -1].log_softmax(0)
        where.append(first)
        gaps.append(float(scores[mine[first]] - scores[theirs[first]]))
    print(f"same greedy replies: {same} of {len(prompts)}, up to {count} tokens each")
    if where:
        print(f"  the others part at the tokens {sorted(where)}, median {statistics.median(where):.0f}")
    if gaps:
        print(f"  there the two tokens are {statistics.median(gaps):.3f} nats apart, at most {max(gaps):.3f}")


def _compare_log_probs(plain: Any, prompt: list[int], top: list[dict[str, Any]]) -> None:
    scores = plain(torch.tensor([prompt])).logits[0, -1].log_softmax(0)
    apart = [float(scores[each["id"]]) - each["logprob"] for each in top]
    root = math.sqrt(statistics.fmean(value * value for value in apart))
    kept = len({each["id"] for each in top} & set(scores.topk(len(top)).indices.tolist()))
    print(
        f"log-probs of the {len(top)} likeliest tokens: {root:.4f} nats apart (root mean square), "
        f"at most {max(map(abs, apart)):.4f}; {kept} of them are the imported model's likeliest too"
    )


if __name__ == "__main__":
    main()
