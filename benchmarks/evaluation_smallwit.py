"""Case a of `make bench-eval` by smallwit's local engine: MODEL DATA_DIR COUNT BATCH."""

import json
import sys
import time
from pathlib import Path

from evaluation_cases import PROTOCOL, prompts_of
from smallwit.evaluation.model_reference import Settings, resolve_model


def main() -> None:
    """Print seconds of generation and the replies."""
    prompts = prompts_of(Path(sys.argv[2]), int(sys.argv[3]))
    generator = resolve_model(sys.argv[1], Settings(dtype="float32", batch=int(sys.argv[4]))).load(PROTOCOL.overflow)
    generator.reply(prompts[:1], PROTOCOL.decoding, [0])
    started = time.perf_counter()
    replies = generator.reply(prompts, PROTOCOL.decoding, [0] * len(prompts))
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "problems": len(replies), "replies": [reply.text for reply in replies]}))


if __name__ == "__main__":
    main()
