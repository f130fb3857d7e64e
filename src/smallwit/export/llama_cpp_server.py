"""llama.cpp's server of the package xllamacpp, which has no command: `python -m smallwit.export.llama_cpp_server`.

It takes some options of `llama-server`, and a key in the variable LLAMA_API_KEY. When the file is loaded it prints its
address. It ends when its standard input does, so it never outlives the process that started it; it prints its peak
memory in bytes then.
"""

import argparse
import os
import sys

from smallwit.verify.math_worker import peak_bytes


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", default="model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="a free one by default")
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--ctx-size", type=int, default=0, help="of all slots together; the model's own by default")
    parser.add_argument("--threads", type=int, default=-1)
    options = parser.parse_args()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # llama.cpp prints there
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = options.model, {options.alias}
    params.hostnames, params.port = [options.host], options.port
    params.api_keys = [key] if (key := os.environ.get("LLAMA_API_KEY")) else []
    params.n_parallel, params.n_ctx, params.warmup = options.parallel, options.ctx_size, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    server = xllamacpp.Server(params)
    print(server.listening_address, file=out, flush=True)
    sys.stdin.read()
    print(peak_bytes(), file=out, flush=True)
    os._exit(0)  # its own end waits for replies under way


if __name__ == "__main__":
    main()
