"""Generate completions, with the log-prob of every token.

    python examples/generate_with_logprobs.py MODEL

MODEL is a folder or a hub id.
"""

import sys

from smallwit.inference.engine import Request, Sampling, complete
from smallwit.inference.local import LocalEngine
from smallwit.models.chat import ChatTokenizer
from smallwit.models.loading import load_model

PROMPTS = ["What is 17 + 25?", "What is 6 * 7?"]

if __name__ == "__main__":
    chat = ChatTokenizer.load(sys.argv[1])
    model = load_model(sys.argv[1], dtype="float32", device="cpu")
    engine = LocalEngine(model, vocabulary=len(chat.tokenizer))
    prompts = chat.encode_prompts(PROMPTS)
    sampling = Sampling(temperature=0.7, max_new_tokens=32, stop=chat.ends.all)
    # A seed for each completion: its random stream does not depend on the others.
    completions = complete(engine, [Request(prompt, sampling, seed) for seed, prompt in enumerate(prompts)])
    for prompt, tokens, completion in zip(PROMPTS, prompts, completions, strict=True):
        (text,) = chat.decode_replies([tokens], [completion.tokens])
        print(f"{prompt} -> {text!r}{' (cut)' if completion.truncated else ''}")
        print(f"  {len(completion.tokens)} tokens, log-prob {sum(completion.log_probs):.2f} nats")
