"""`smallwit eval`: a model, or stored responses, on benchmarks."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from smallwit.cli.app import MEASURE, app
from smallwit.cli.options import (
    AllowUnsafeCode,
    DataDir,
    Device,
    Dtype,
    Offline,
    TemplateKwargs,
    apply_safety,
    data_dir_of,
    not_negative,
)
from smallwit.errors import UserError
from smallwit.storage.paths import path_of


@app.command("eval", rich_help_panel=MEASURE)
def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="A folder, a .gguf file, a hub id, runs/NAME:STAGE, or openai:URL#model."),
    ] = None,
    *,
    suite: Annotated[str, typer.Option("--suite", metavar="A,B", help="Tasks, or path/to/file.py:ClassName.")],
    responses: Annotated[
        Path | None,
        typer.Option(
            "--responses", metavar="FILE", parser=path_of, help="Stored generations to grade, in place of MODEL."
        ),
    ] = None,
    protocol: Annotated[
        str, typer.Option("--protocol", metavar="NAME", help="How tasks are asked and answers are read.")
    ] = "default",
    samples: Annotated[int, typer.Option("--samples", metavar="K", min=1, help="Responses to each problem.")] = 1,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", metavar="T", parser=not_negative, help="0 is greedy. By default the protocol's."),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option("--max-new-tokens", metavar="N", min=1, help="Of a response. By default the protocol's."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="Problems of each suite, drawn by their ids. By default all."),
    ] = None,
    order: Annotated[
        Literal["drawn", "given"], typer.Option("--order", help="Problems of --limit: drawn, or the first as given.")
    ] = "drawn",
    split: Annotated[
        Literal["test", "validation", "train"], typer.Option("--split", help="Split of the tasks.")
    ] = "test",
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="Seed of the samples' random streams.")] = 0,
    against: Annotated[
        str | None, typer.Option("--against", metavar="MODEL", help="Give per cent of this model's score, too.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", parser=path_of, help="Folder of samples and scores, by default in evaluations/."
        ),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", metavar="N", min=1, help="Sequences in flight.")] = 64,
    device: Device = "auto",
    dtype: Dtype = "auto",
    chat_template_kwargs: TemplateKwargs = None,
    data_dir: DataDir = None,
    offline: Offline = False,
    allow_unsafe_code: AllowUnsafeCode = False,
) -> None:
    """Measure a model, or stored responses, on benchmarks by one protocol."""
    apply_safety(offline, allow_unsafe_code)
    if (model is None) == (responses is None):
        raise UserError("smallwit eval measures a MODEL or --responses FILE; give one of them")
    if responses is not None and against is not None:
        raise UserError("--against compares with a model under the same protocol; it needs a MODEL, not --responses")
    if responses is not None and chat_template_kwargs:
        raise UserError("--chat-template-kwargs is for a MODEL that is asked, not for stored --responses; leave it out")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the graders' processes are forked
    from transformers.utils import logging

    from smallwit.evaluation.evaluate import EvaluationRequest, Settings, evaluate, evaluate_responses
    from smallwit.evaluation.suite import Choice

    logging.disable_progress_bar()
    suites = list(dict.fromkeys(name.strip() for name in suite.split(",") if name.strip()))
    if not suites:
        raise UserError(f"--suite '{suite}': names no task; give some, as gsm8k,math500")
    choice = Choice(
        split=split,
        limit=limit,
        samples=samples,
        seed=seed,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        order=order,
    )
    request = EvaluationRequest(suites, protocol, choice, data_dir_of(data_dir), out)
    if model is None:
        assert responses is not None
        evaluate_responses(responses, request)
    else:
        evaluate(model, request, Settings(device, dtype, batch, chat_template_kwargs or {}), against=against)
