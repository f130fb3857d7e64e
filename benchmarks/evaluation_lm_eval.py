"""Case a of `make bench-eval` by lm-evaluation-harness' hf backend: MODEL DATA_DIR COUNT BATCH."""

import json
import sys
import time
from pathlib import Path

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from evaluation_cases import PROTOCOL, prompts_of
from smallwit.device import resolve_device


def main() -> None:
    """Print seconds of generation and the replies."""
    texts = [prompt.text for prompt in prompts_of(Path(sys.argv[2]), int(sys.argv[3]))]
    kwargs = {"until": list(PROTOCOL.decoding.stop), "do_sample": False, "temperature": 0.0}
    requests = [Instance("generate_until", {}, (text, dict(kwargs)), index) for index, text in enumerate(texts)]
    model = HFLM(pretrained=sys.argv[1], dtype="float32", batch_size=int(sys.argv[4]), device=resolve_device())
    model.generate_until(requests[:1], disable_tqdm=True)
    started = time.perf_counter()
    replies = model.generate_until(requests, disable_tqdm=True)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "problems": len(replies), "replies": replies}))


if __name__ == "__main__":
    main()
