"""`smallwit chat`: a conversation with a model."""

import os
import sys
from contextlib import suppress
from typing import Annotated

import typer

from smallwit.cli.app import USE, app
from smallwit.cli.options import (
    AllowUnsafeCode,
    DataDir,
    Device,
    Dtype,
    ModelName,
    Offline,
    TemplateKwargs,
    apply_safety,
    data_dir_of,
    not_negative,
)
from smallwit.errors import UserError


@app.command(rich_help_panel=USE)
def chat(
    model: ModelName,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="System prompt.")] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="NAME", help="Task that /problem asks, with a verdict on each answer."),
    ] = None,
    thoughts: Annotated[bool, typer.Option("--thoughts", help="Show the thoughts of a reasoning model.")] = False,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="T", parser=not_negative, help="0 is greedy.")
    ] = 0.0,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", metavar="N", min=1, help="Of a reply.")] = 2048,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="Seed of the replies' random streams.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    chat_template_kwargs: TemplateKwargs = None,
    data_dir: DataDir = None,
    offline: Offline = False,
    allow_unsafe_code: AllowUnsafeCode = False,
) -> None:
    """Talk with a model, or answer one question from standard input.

    On a terminal /help shows the commands. Otherwise all of standard input is one question, and standard output gets
    the answer and nothing else.
    """
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if task is not None and not on_terminal:
        raise UserError("--task needs a terminal, where /problem asks; smallwit eval measures a model without one")
    apply_safety(offline, allow_unsafe_code)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the graders' processes are forked
    from transformers.utils import logging

    from smallwit.console.terminal import Terminal
    from smallwit.evaluation.evaluate import checked_task
    from smallwit.evaluation.model_reference import Settings, resolve_model
    from smallwit.evaluation.suite import problems_of
    from smallwit.inference.generator import Decoding
    from smallwit.use.chat import Dialogue, Quiz, TerminalChat, answer_once

    logging.disable_progress_bar()
    resolved = resolve_model(model, Settings(device, dtype, 1, chat_template_kwargs or {}))
    if resolved.generator.chat_template == "":
        raise UserError(
            f"model {model}: its tokenizer has no chat template, so it holds no conversation; add one to it"
        )
    quiz = None
    if task is not None:
        loaded = checked_task(task, resolved.tasks.get(task, {}), data_dir_of(data_dir), "test")
        quiz = Quiz(loaded, problems_of(loaded, "test", None))
    question = None if on_terminal else _standard_input()
    dialogue = Dialogue(resolved.load("refuse"), Decoding(temperature, max_new_tokens), seed=seed, system=system)
    if question is not None:
        answer_once(dialogue, question, Terminal(), thoughts=thoughts)
        return
    with suppress(ImportError):
        import readline  # noqa: F401  input() edits lines by it
    try:
        TerminalChat(dialogue, Terminal(), thoughts=thoughts, quiz=quiz).run()
    except KeyboardInterrupt:
        print()
        raise typer.Exit(130) from None


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UserError(f"standard input is not UTF-8 ({error.reason} at byte {error.start}); convert it") from error
