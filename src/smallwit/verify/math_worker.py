"""The process in which formulas are compared by their values. Run as a script by `math_pool`.

Protocol: one JSON object a line. In: `{"gold", "answer", "cpu_seconds"}`. Out, once at the start: `{"ready": true}` or
`{"failed": reason}`; then for each request `{"equal": bool, "cpu_seconds": float}` or `{"limit": reason}`. The process
has a memory limit for its life and a CPU limit for each request, so a request may also end it: `math_pool` reads the
signal.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

MEMORY_BYTES = 1536 * 1024**2


def limit_memory() -> None:
    """Cap the address space where the system can (macOS cannot) and write no core files."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "darwin":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def memory_is_short() -> bool:
    """Return whether half of the memory has been resident once."""
    return peak_bytes() > MEMORY_BYTES // 2


def peak_bytes() -> int:
    """Return the most memory that was ever resident."""
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not ru_maxrss: Linux counts in it what the process that started this one held at that time.
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def serve() -> None:
    """Answer requests until standard input ends. A request that meets the memory limit is the last."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints stays out of the protocol
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller, who ends this process when it ends
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    limit_memory()
    try:
        # As a script this file has its own folder's parents on no path, and its own folder holds a math.py.
        sys.path.append(str(Path(__file__).parents[2]))
        from smallwit.verify.math_same import same_relation
    except Exception as error:  # reported to the caller, who raises it
        print(json.dumps({"failed": f"{type(error).__name__}: {error}"}), file=out)
        raise
    print(json.dumps({"ready": True}), file=out)
    for line in sys.stdin:
        request = json.loads(line)
        # SIGPROF ends this process when it has used the CPU time, in C code too, which a Python handler would not.
        signal.setitimer(signal.ITIMER_PROF, request["cpu_seconds"])
        start = time.process_time()
        try:
            answer: dict[str, Any] = {"equal": same_relation(request["gold"], request["answer"])}
        except (MemoryError, RecursionError) as error:
            print(json.dumps({"limit": type(error).__name__}), file=out)
            return
        except (ValueError, ArithmeticError) as error:  # not readable, or no value that is exact enough
            answer = {"equal": False, "error": type(error).__name__}
        signal.setitimer(signal.ITIMER_PROF, 0)
        answer["cpu_seconds"] = time.process_time() - start
        if not answer["equal"] and memory_is_short():
            print(json.dumps({"limit": "memory"}), file=out)
            return
        print(json.dumps(answer), file=out)


if __name__ == "__main__":
    serve()
