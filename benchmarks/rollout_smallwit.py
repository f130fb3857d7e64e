"""smallwit's side of `make bench-rollout`: CASE FOLDER DATA_DIR; prints seconds, tokens, and the rows of each step."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from rollout_cases import CASES, completions_of, prompts_of
from smallwit.inference.engine import Sampling
from smallwit.inference.local import LocalEngine
from smallwit.models.chat import ChatTokenizer
from smallwit.models.fit import vocabulary_of
from smallwit.training.families import load_supported_model


def main(name: str, folder: Path, data_dir: Path) -> None:
    """Complete all prompts; a few tokens before the clock warm up."""
    case, chat = CASES[name], ChatTokenizer.load(folder)
    prompts = prompts_of(case, chat, data_dir)
    model = load_supported_model(folder, dtype=case.dtype, device="cpu")
    engine = LocalEngine(model, vocabulary=vocabulary_of(chat, model, name), batch=case.batch)
    sampling = Sampling(0.0, case.max_new_tokens, chat.ends.all, log_probs=False)
    completions_of(engine, prompts[:2], replace(sampling, max_new_tokens=4))
    rows: list[int] = []
    started = time.perf_counter()
    found = completions_of(engine, prompts, sampling, on_tokens=rows.append)
    seconds = time.perf_counter() - started
    completions = [completion.tokens for completion in found]
    print(json.dumps({"seconds": seconds, "tokens": sum(map(len, completions)), "rows": rows} | {"texts": completions}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
