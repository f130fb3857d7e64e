"""An exported file measured beside the model that it was made of: same protocol, same problems, paired."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from smallwit.console.tables import print_whole
from smallwit.evaluation.comparison import compare_tasks
from smallwit.evaluation.comparison_table import print_comparison
from smallwit.evaluation.evaluate import EvaluationRequest, Measured, measure_models
from smallwit.evaluation.model_reference import ResolvedModel, Settings, resolve_model
from smallwit.evaluation.protocol import exported_format
from smallwit.evaluation.reasons import Transitions
from smallwit.evaluation.scores import tokens_per_second
from smallwit.evaluation.stored import comparable, read_evaluation
from smallwit.export import AnyQuant, llama_cpp
from smallwit.export.llama_cpp import LlamaCppEngine
from smallwit.export.readers import keep_ends
from smallwit.inference.generator import Overflow, StreamingGenerator
from smallwit.inference.local_generator import LocalGenerator
from smallwit.models.chat import ChatTokenizer
from smallwit.models.gguf_file import GgufFile
from smallwit.models.gguf_import import import_gguf
from smallwit.storage.artifacts import file_hash
from smallwit.verify.math_worker import peak_bytes

SLOTS = 8
"""Replies that llama.cpp writes at a time."""
_FORMAT = ("generator.dtype", "generator.engine")


def verify(
    model: ResolvedModel,
    file: Path,
    quant: AnyQuant,
    copy: Path,
    request: EvaluationRequest,
    settings: Settings,
    console: Console,
) -> list[Measured]:
    """Measure a model, its exported `file` read back as the folder `copy`, and the file in llama.cpp if installed.

    `copy` is made if it is not there. The dtype of `settings` is that in which the two local models are computed.
    Prints scores, paired differences to the model, bytes, tokens a second and memory. Raises as `evaluate` does.
    """
    assert model.folder is not None
    if not copy.exists():
        import_gguf(file, copy)
        keep_ends(ChatTokenizer.load(model.folder), copy)
    options = replace(settings, chat_template_kwargs=model.generator.chat_template_kwargs or {})
    digest = file_hash(file)
    read = replace(
        resolve_model(str(copy), options), reference=str(file), label=f"{model.label}-{quant}", identity=digest
    )
    computed = exported_format(quant, settings.dtype)
    models = [model, replace(read, generator=replace(read.generator, dtype=computed))]
    engine, header = None, GgufFile(file)
    if llama_cpp.installed() and header.get("tokenizer.ggml.model") != "none":
        chat = ChatTokenizer.load(copy, chat_template_kwargs=options.chat_template_kwargs)
        context = int(header.need(f"{header.architecture}.context_length"))
        engine = LlamaCppEngine(
            file, context=context, batch=min(SLOTS, settings.batch), threads=torch.get_num_threads()
        )
        models.append(_in_llama_cpp(models[1], quant, engine, chat))
    measured = measure_models(models, request, settings, model.tasks, console)
    for other in measured[1:]:
        _compare(other, measured[0], console)
    # Both local models are computed in one format, so the peak of this process is that of either.
    peak = peak_bytes() / 1e9
    sizes = [
        sum(path.stat().st_size for path in model.folder.glob("*.safetensors")),
        *[file.stat().st_size] * (len(models) - 1),
    ]
    memory = [peak, peak, engine.spent.peak_memory_gb if engine else None]
    print_costs(measured, sizes, memory, console)
    return measured


def _in_llama_cpp(read: ResolvedModel, quant: AnyQuant, engine: LlamaCppEngine, chat: ChatTokenizer) -> ResolvedModel:
    def load(overflow: Overflow) -> StreamingGenerator:
        return LocalGenerator(engine, chat, overflow=overflow)

    return replace(
        read,
        reference=f"{read.reference} in llama.cpp",
        label=f"{read.label}-llama.cpp",
        identity=f"{read.identity} in llama.cpp",
        generator=replace(read.generator, engine="llama.cpp", dtype=quant),
        load=load,
    )


def _compare(one: Measured, model: Measured, console: Console) -> None:
    tasks, pooled = compare_tasks(one.rows, model.rows)
    protocols = [read_evaluation(str(each.folder)).protocols for each in (one, model)]
    notes = [text for task in one.rows for text in _others(protocols[0][task], protocols[1][task])]
    console.print()
    reasons = {found.task: Transitions.of(one.rows[found.task], model.rows[found.task]) for found in tasks}
    print_comparison(console, one.reference, model.reference, [*tasks, *([pooled] if pooled else [])], reasons, notes)


def _others(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return in what two protocols differ beside engine and number format."""
    return [text for found in comparable(a, b) for text in found if not text.startswith(_FORMAT)]


def print_costs(measured: list[Measured], sizes: list[int], memory: list[float | None], console: Console) -> None:
    """Print bytes of weights, tokens a second and peak memory of each model."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for head in ("model", "bytes", "tokens/s", "memory GB"):
        table.add_column(Text(head), justify="left" if head == "model" else "right", no_wrap=True)
    for one, size, peak in zip(measured, sizes, memory, strict=False):
        speed = tokens_per_second([row for rows in one.rows.values() for row in rows])
        cells = (f"{size:,}", "—" if speed is None else f"{speed:,.0f}", f"{peak:.2f}" if peak else "—")
        table.add_row(Text(one.reference), *map(Text, cells))
    console.print()
    print_whole(console, table)
