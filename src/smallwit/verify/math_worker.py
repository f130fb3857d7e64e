"""The process in which Math-Verify parses and compares formulas. Run as a script by `math_pool`; imports no smallwit.

Protocol: one JSON object a line. In: `{"gold", "answer", "cpu_seconds"}`. Out, once at the start: `{"ready": true}` or
`{"failed": reason}`; then for each request `{"equal": bool, "cpu_seconds": float}` or `{"limit": reason}`. The process
has a memory limit for its life and a CPU limit for each request, so a request may also end it: `math_pool` reads the
signal.
"""

import json
import os
import re
import signal
import sys
import time
from fractions import Fraction
from typing import Any

MEMORY_BYTES = 1536 * 1024**2


def limit_memory() -> None:
    """Cap the address space where the system can (macOS cannot) and write no core files."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "darwin":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def memory_is_short() -> bool:
    """Whether half of the memory has been resident once: libraries turn a MemoryError into "not equal" themselves."""
    return peak_bytes() > MEMORY_BYTES // 2


def peak_bytes() -> int:
    """The most memory that was ever resident."""
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not ru_maxrss: Linux counts in it what the process that started this one held at that time.
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def read_literal(text: str, *_: Any, **__: Any) -> Any:
    """Stands where sympy turns a string into an expression by evaluating it as Python.

    Read are decimal literals, which become exact fractions (0.333 is not a third), and single names, which sympy itself
    uses for its symbols. Everything else is refused with `ValueError`.
    """
    import sympy  # type: ignore[import-untyped]

    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", text):
        return sympy.Symbol(text)
    if not re.fullmatch(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)\s*", text):
        raise ValueError("strings are not evaluated here")
    return sympy.Rational(Fraction(text.strip()))


class Comparer:
    """Math-Verify with its own timeouts off (they need SIGALRM and do not bound C code)."""

    def __init__(self) -> None:
        import logging

        import sympy.core.random  # type: ignore[import-untyped]
        import sympy.parsing.sympy_parser  # type: ignore[import-untyped]
        from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
        from math_verify import LatexExtractionConfig, parse, verify

        logging.disable(logging.CRITICAL)
        # Math-Verify reads each number by sympy's `sympify`, which evaluates strings by `parse_expr` and `eval_expr`.
        sympy.parsing.sympy_parser.parse_expr = sympy.parsing.sympy_parser.eval_expr = read_literal
        # Units are taken off by the caller; Math-Verify's list of them holds single letters such as `m` and `t`.
        normalization = NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
        )
        self._config = [LatexExtractionConfig(boxed_match_priority=0, normalization_config=normalization)]
        self._parse, self._verify, self._seed = parse, verify, sympy.core.random.seed

    def equal(self, gold: str, answer: str) -> bool:
        """Whether two formulas are equal; false where one of them cannot be parsed."""
        self._seed(0)
        both = [self._read(text) for text in (gold, answer)]
        return all(both) and bool(self._verify(*both, strict=True, timeout_seconds=None)) and self._close(*both)

    @staticmethod
    def _close(gold: list[Any], answer: list[Any]) -> bool:
        """Whether two constants agree to nine digits of their own size; Math-Verify takes all tiny ones for equal."""
        one, other = gold[0], answer[0]
        if not (getattr(one, "is_number", False) and getattr(other, "is_number", False)):
            return True
        size = max(abs(one.evalf(20)), abs(other.evalf(20)))
        return not size.is_finite or bool(abs((one - other).evalf(20)) <= size * 1e-9)

    def _read(self, text: str) -> list[Any]:
        found: list[Any] = self._parse(
            f"\\boxed{{{text}}}", self._config, fallback_mode="no_fallback", parsing_timeout=None
        )
        return found


def serve() -> None:
    """Answer requests until standard input ends. A request that meets the memory limit is the last."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints stays out of the protocol
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller, who ends this process when it ends
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    limit_memory()
    try:
        comparer = Comparer()
        comparer.equal("\\frac{x}{2}", "0.5x")  # loads the grammar's tables
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
            answer: dict[str, Any] = {"equal": comparer.equal(request["gold"], request["answer"])}
        except (MemoryError, RecursionError) as error:
            print(json.dumps({"limit": type(error).__name__}), file=out)
            return
        except BaseException as error:  # noqa: BLE001 - Math-Verify's TimeoutException is a BaseException
            answer = {"equal": False, "error": type(error).__name__}
        signal.setitimer(signal.ITIMER_PROF, 0)
        answer["cpu_seconds"] = time.process_time() - start
        if not answer["equal"] and memory_is_short():
            print(json.dumps({"limit": "memory"}), file=out)
            return
        print(json.dumps(answer), file=out)


if __name__ == "__main__":
    serve()
