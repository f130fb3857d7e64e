"""Read published folders with transformers alone, as anybody would, and say what was read.

`python handover_reader.py IN.json OUT.json`: IN has `folders`, `prompts` and `new_tokens`. Runs under transformers 4.57
and 5, so nothing of smallwit is imported.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer


def read(folder: str, prompts: list[str], new_tokens: int) -> dict[str, Any]:
    """Ids of each prompt in its chat template, of the bare text, the greedy reply, and the log-probs along it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
    rows = []
    for prompt in prompts:
        turns = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        tokens = torch.tensor([ids])
        with torch.no_grad():
            made = model.generate(
                tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=new_tokens, do_sample=False
            )
            log_probs = model(made[:, :-1]).logits[0].log_softmax(-1)
        reply = made[0, len(ids) :]
        rows.append(
            {
                "bare": tokenizer(prompt, add_special_tokens=False)["input_ids"],
                "ids": ids,
                "reply": tokenizer.decode(reply, skip_special_tokens=True),
                "log_probs": log_probs[len(ids) - 1 :].gather(1, reply[:, None])[:, 0].tolist(),
            }
        )
    return {
        "tokenizer": type(tokenizer).__name__,
        "eos": model.generation_config.eos_token_id,
        "pad": model.generation_config.pad_token_id,
        "rows": rows,
    }


def main() -> None:
    asked, out = (Path(argument) for argument in sys.argv[1:])
    job = json.loads(asked.read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    for folder in job["folders"]:
        try:
            found[folder] = read(folder, job["prompts"], job["new_tokens"])
        except Exception as error:  # noqa: BLE001 - whatever a folder does to transformers is the finding
            found[folder] = {"error": f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"}
    out.write_text(json.dumps({"transformers": transformers.__version__, "folders": found}), encoding="utf-8")


if __name__ == "__main__":
    main()
