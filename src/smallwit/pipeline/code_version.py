"""The hash of the code that computes. Wording does not change it: comments, docstrings, descriptions, messages."""

import ast
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from smallwit.storage.artifacts import write_atomically

# These read and check the recipe, schedule and summarise. They cannot change what a stage with a given key computes.
NOT_COMPUTING = (
    "__init__.py",
    "__main__.py",
    "cli/",
    "console/",
    "data/inspect.py",
    "data/push.py",
    "evaluation/compare.py",
    "evaluation/comparison_table.py",
    "evaluation/endpoint_model.py",
    "evaluation/evaluate.py",
    "evaluation/folder.py",
    "evaluation/grade.py",
    "evaluation/model_reference.py",
    "evaluation/responses.py",
    "evaluation/scores_table.py",
    "evaluation/seed_table.py",
    "evaluation/seeds.py",
    "evaluation/statistics.py",
    "evaluation/stored.py",
    "export/llama_cpp.py",
    "export/llama_cpp_server.py",
    "export/verify.py",
    "network/hosts.py",
    "network/upload.py",
    "pipeline/adoption.py",
    "pipeline/code_version.py",
    "pipeline/gc.py",
    "pipeline/key_records.py",
    "pipeline/ledger.py",
    "pipeline/plan.py",
    "pipeline/preflight.py",
    "pipeline/processes.py",
    "pipeline/reading.py",
    "pipeline/results.py",
    "pipeline/run_folder.py",
    "pipeline/runs.py",
    "pipeline/scheduler.py",
    "pipeline/seeds.py",
    "pipeline/smoke.py",
    "pipeline/threads.py",
    "pipeline/warm_up.py",
    "recipe/check.py",
    "recipe/file.py",
    "recipe/section.py",
    "recipe/yaml.py",
    "report/",
    "stages/train/checks.py",
    "storage/locks.py",
    "suggestions.py",
    "tasks/trial.py",
    "use/",
)
_WORDS = frozenset(("description", "examples", "title"))
"""Arguments of pydantic's `Field` that only people read."""


@cache
def code_version() -> str:
    """Return a hash of the package's code that computes, so that changed code does not reuse an old artifact."""
    return hash_of(Path(__file__).parents[1], _cache_file())


def hash_of(root: Path, known: Path | None = None) -> str:
    """Return the hash of the computing modules below `root`.

    The file `known` keeps the hashes of modules by size and time of change, because parsing takes a second. A file that
    cannot be read or written only costs that second.
    """
    modules = _cached(known)
    fresh: dict[str, str] = {}
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not name.startswith(NOT_COMPUTING):
            state = path.stat()
            stamp = f"{path} {state.st_size} {state.st_mtime_ns}"
            fresh[stamp] = modules.get(stamp) or hash_of_source(path.read_bytes())
            digest.update(f"{name} {fresh[stamp]}\n".encode())
    if known is not None and fresh != modules:
        with suppress(OSError):  # a home that cannot be written
            write_atomically(known, json.dumps(fresh))
    return digest.hexdigest()[:16]


def hash_of_source(source: bytes) -> str:
    """Return a hash of a module's syntax tree without wording. It is the same in all versions of Python."""
    return hashlib.sha256("".join(_parts(ast.parse(source))).encode()).hexdigest()[:16]


def _cache_file() -> Path | None:
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # there is no home
        return None
    # A file for each installation, and for each way to hash.
    own = hashlib.sha256(__file__.encode() + Path(__file__).read_bytes()).hexdigest()[:8]
    return home / "smallwit" / f"code-{own}.json"


def _cached(known: Path | None) -> dict[str, str]:
    if known is not None:
        with suppress(OSError, ValueError):
            found = json.loads(known.read_bytes())
            if isinstance(found, dict):
                return found
    return {}


def _parts(node: object) -> Iterator[str]:
    """Yield a text of each part of a syntax tree. Empty fields are left out: newer versions of Python have more."""
    if isinstance(node, list):
        yield "["
        for each in node:
            if not _is_text(each):
                yield from _parts(each)
        yield "]"
    elif isinstance(node, ast.Raise) and _is_user_error(node.exc):
        yield "raise UserError"
    elif isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        for name, value in ast.iter_fields(node):
            if name == "ctx" or value is None or value == []:
                continue
            if name == "keywords" and isinstance(node, ast.Call) and _name(node.func) == "Field":
                value = [word for word in value if word.arg not in _WORDS]
            yield f"{name}="
            yield from _parts(value)
        yield ")"
    else:
        yield f"{node!r},"


def _is_text(node: object) -> bool:
    """Return whether a statement is a text alone: a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_user_error(raised: object) -> bool:
    return isinstance(raised, ast.Call) and _name(raised.func) == "UserError"


def _name(node: object) -> str | None:
    return node.id if isinstance(node, ast.Name) else None
