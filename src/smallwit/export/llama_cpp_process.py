"""llama.cpp in a process of its own: `python -m smallwit.export.llama_cpp_process FILE SLOTS CONTEXT THREADS`.

Requests come on standard input and results leave on standard output, a JSON object a line, first an empty one when the
file is loaded. The process ends when its standard input does, so it never outlives the one that started it.
"""

import json
import os
import secrets
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from smallwit.verify.math_worker import peak_bytes


def main() -> None:
    """Serve until standard input ends."""
    slots, context, threads = map(int, sys.argv[2:])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # llama.cpp prints there
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_parallel, params.n_ctx, params.warmup = slots, slots * context, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    # It listens on this machine's own address, where anyone on the machine could ask.
    key = secrets.token_hex(16)
    params.api_keys = [key]
    server, lock = xllamacpp.Server(params), threading.Lock()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def answer(request: dict[str, Any]) -> None:
        try:
            body = json.dumps(request["body"]).encode()
            asked = urllib.request.Request(f"{server.listening_address}/completion", body, headers)
            with urllib.request.urlopen(asked) as reply:
                result = json.load(reply)
        except Exception as error:  # noqa: BLE001  whatever it is, it is told: nobody sees it in this thread
            result = {"error": f"{type(error).__name__}: {error}"}
        told = {"index": request["index"], "peak_bytes": peak_bytes(), "result": result}
        with lock:
            print(json.dumps(told), file=out, flush=True)

    print("{}", file=out, flush=True)
    with ThreadPoolExecutor(slots) as pool:
        for line in sys.stdin:
            pool.submit(answer, json.loads(line))
        os._exit(0)


if __name__ == "__main__":
    main()
