"""Runs llama.cpp's server of the package xllamacpp, which has no command: `FILE NAME HOST PORT`.

Run by its path. The key, if there is one, is in the variable LLAMA_API_KEY.
"""

import os
import sys
import threading


def main() -> None:
    """Serve until the process is ended."""
    import xllamacpp

    path, name, host, port = sys.argv[1:]
    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.model_alias = path, {name}
    parameters.hostnames, parameters.port = [host], int(port)
    parameters.api_keys = [key] if (key := os.environ.get("LLAMA_API_KEY")) else []
    server = xllamacpp.Server(parameters)
    print(f"listening at {server.listening_address}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
