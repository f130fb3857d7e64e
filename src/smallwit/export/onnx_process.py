"""onnxruntime-genai in a process of its own: `python -m smallwit.export.onnx_process`.

It reads one request as JSON from its standard input, and writes the answer to its standard output: `build` a folder of
a model's, or `read` one: continue prompts greedily, and score replies. ONNX Runtime counts what it does and sends that
to its makers, by sockets that no audit hook sees; here it is told not to, before it is imported.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from smallwit.network import offline

Json = dict[str, Any]


def main() -> None:
    """Answer one request."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the builder prints there
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    offline.enable()
    request = json.load(sys.stdin)
    actions: dict[str, Callable[..., Json]] = {"build": build, "read": read}
    json.dump(actions[request.pop("do")](**request), out)
    out.close()


def build(source: str, target: str, settings: Sequence[str]) -> Json:
    """Write the model of a folder as an ONNX folder. The first of the `settings` is the precision."""
    from onnxruntime_genai.models import builder

    with tempfile.TemporaryDirectory() as cache:
        where = (None, source, target, settings[0], "cpu", cache)
        options = ["hf_token=false", *settings[1:]]
        builder.create_model(*where, **builder.parse_extra_options(*where, options))
    return {}


def read(
    folder: str,
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    new_tokens: int,
    stop: Sequence[int],
    vocabulary: int,
    texts: Sequence[str],
    question: str | None,
    threads: int,
) -> Json:
    """Return the tokens of greedy completions, the log-probabilities of `replies`, and the ids of `texts`.

    `vocabulary` are the rows of the table that the log-probabilities are of. The ids are by its own tokenizer, the last
    ones those of the prompt that asks the `question`. In their place there may be a reason for none.
    """
    import onnxruntime_genai as genai

    config = genai.Config(folder)
    # Threads that spin while they wait slow down a machine that has other work.
    session = {"intra_op_num_threads": threads, "session.intra_op.allow_spinning": "0"}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
    model = genai.Model(config)
    try:
        tokenizer = genai.Tokenizer(model)
        if question is not None:
            turns = json.dumps([{"role": "user", "content": question}])
            texts = [*texts, tokenizer.apply_chat_template(turns, add_generation_prompt=True)]
        ids: Any = [tokenizer.encode(text).tolist() for text in texts]
    except RuntimeError as error:  # of all that its own code raises
        ids = " ".join(str(error).split())
    return {
        "tokens": [_continue(genai, model, prompt, new_tokens, stop) for prompt in prompts],
        "log_probs": [_score(genai, model, *pair, vocabulary) for pair in zip(prompts, replies, strict=True)],
        "ids": ids,
    }


def _continue(genai: Any, model: Any, prompt: Sequence[int], new_tokens: int, stop: Sequence[int]) -> list[int]:
    generator = _generator(genai, model, prompt, new_tokens)
    tokens: list[int] = []
    while len(tokens) < new_tokens and not (tokens and tokens[-1] in stop):
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    return tokens


def _score(genai: Any, model: Any, prompt: Sequence[int], reply: Sequence[int], vocabulary: int) -> list[float]:
    generator = _generator(genai, model, [*prompt, *reply[:-1]], 1)
    logits = np.array(generator.get_output("logits"))[0, len(prompt) - 1 :, :vocabulary].astype(np.float64)
    largest = logits.max(1)
    normaliser = largest + np.log(np.exp(logits - largest[:, None]).sum(1))
    found: list[float] = (logits[np.arange(len(reply)), reply] - normaliser).tolist()
    return found


def _generator(genai: Any, model: Any, tokens: Sequence[int], new_tokens: int) -> Any:
    params = genai.GeneratorParams(model)
    greedy = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
    params.set_search_options(max_length=len(tokens) + new_tokens, min_length=0, **greedy)
    generator = genai.Generator(model, params)
    generator.append_tokens(np.array(tokens, np.int32))
    return generator


if __name__ == "__main__":
    main()
