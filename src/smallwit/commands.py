"""What the commands do, each a function of its arguments. Heavy libraries are imported inside them."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from smallwit.console.sanitize import say
from smallwit.errors import UserError
from smallwit.storage.paths import path_of


def data_dir_of(given: Path | None) -> Path | None:
    """The data folder: the option, else SMALLWIT_DATA_DIR, else none. Raises `UserError` when it is no folder."""
    source = "--data-dir"
    if given is None and os.environ.get("SMALLWIT_DATA_DIR"):
        given, source = Path(os.environ["SMALLWIT_DATA_DIR"]), "SMALLWIT_DATA_DIR"
    if given is not None and not path_of(given).is_dir():
        raise UserError(f"{source} {given}: there is no such folder; name one that holds benchmark files")
    return given


def run(arguments: argparse.Namespace) -> int:
    """Run a recipe, or go on with it."""
    _begin(arguments)
    from smallwit.pipeline.preflight import check_recipe
    from smallwit.recipe.file import dump_recipe, read_recipe

    base = arguments.recipe.parent
    data_dir = data_dir_of(arguments.data_dir)
    recipe, lines = read_recipe(arguments.recipe, arguments.set)
    check_recipe(recipe, base, data_dir, lines=lines, read_data=not arguments.dry_run)
    if arguments.dry_run:
        print(dump_recipe(recipe), end="")
        return 0
    run_dir = arguments.run_dir or Path("runs") / (f"{recipe.name}-smoke" if arguments.smoke else recipe.name)

    from smallwit.pipeline import runs as pipeline

    return _said(lambda: pipeline.run(recipe, base=base, run_dir=run_dir, data_dir=data_dir, smoke=arguments.smoke))


def teach(arguments: argparse.Namespace) -> int:
    """Store what a recipe's teachers know."""
    _begin(arguments)
    from smallwit.pipeline.preflight import check_recipe
    from smallwit.recipe.file import read_recipe

    base = arguments.recipe.parent
    data_dir = data_dir_of(arguments.data_dir)
    recipe, lines = read_recipe(arguments.recipe, arguments.set)
    check_recipe(recipe, base, data_dir, lines=lines)
    run_dir = arguments.run_dir or Path("runs") / recipe.name

    from smallwit.pipeline import runs as pipeline

    def stored() -> None:
        for store in pipeline.teach(recipe, base=base, run_dir=run_dir, data_dir=data_dir):
            share = store.size / store.tokens
            say(f"{store.stage}: {store.folder}, {store.tokens:,} tokens, {share:.1f} bytes a token")

    return _said(stored)


def eval(arguments: argparse.Namespace) -> int:
    """Measure a model, or stored responses."""
    _begin(arguments)
    if (arguments.model is None) == (arguments.responses is None):
        raise UserError("smallwit eval measures a MODEL or --responses FILE; give one of them")
    if arguments.responses is not None and arguments.against is not None:
        raise UserError("--against compares with a model under the same protocol; it needs a MODEL, not --responses")
    if arguments.responses is not None and arguments.chat_template_kwargs:
        raise UserError("--chat-template-kwargs is for a MODEL that is asked, not for stored --responses; leave it out")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the graders' processes are forked
    from transformers.utils import logging

    from smallwit.evaluation.evaluate import EvaluationFailed, Request, Settings, evaluate, evaluate_responses
    from smallwit.evaluation.suite import Choice

    logging.disable_progress_bar()
    choice = Choice(
        split=arguments.split,
        limit=arguments.limit,
        samples=arguments.samples,
        seed=arguments.seed,
        temperature=arguments.temperature,
        max_new_tokens=arguments.max_new_tokens,
    )
    suites = list(dict.fromkeys(name.strip() for name in arguments.suite.split(",") if name.strip()))
    if not suites:
        raise UserError(f"--suite '{arguments.suite}': names no task; give some, as gsm8k,math500")
    request = Request(suites, arguments.protocol, choice, data_dir_of(arguments.data_dir), arguments.out)
    try:
        if arguments.responses is not None:
            evaluate_responses(arguments.responses, request)
        else:
            options = arguments.chat_template_kwargs
            settings = Settings(arguments.device, arguments.dtype, arguments.batch, options)
            evaluate(arguments.model, request, settings, against=arguments.against)
    except EvaluationFailed as error:
        say(f"smallwit: {error}", sys.stderr)
        return 1
    return 0


def data_build(arguments: argparse.Namespace) -> int:
    """Build a recipe's datasets."""
    _begin(arguments)
    from smallwit.pipeline.preflight import check_recipe
    from smallwit.recipe.file import read_recipe

    base = arguments.recipe.parent
    data_dir = data_dir_of(arguments.data_dir)
    recipe, lines = read_recipe(arguments.recipe, arguments.set)
    check_recipe(recipe, base, data_dir, lines=lines)
    run_dir = arguments.run_dir or Path("runs") / recipe.name
    if arguments.push is not None and sum(stage.kind == "dataset" for stage in recipe.stages) != 1:
        raise UserError("--push uploads one dataset, and the recipe does not build exactly one; build it alone")

    from smallwit.data.push import push, require_hub
    from smallwit.pipeline import runs as pipeline

    if arguments.push is not None:
        require_hub(arguments.push)

    def built() -> None:
        made = pipeline.construct(recipe, base=base, run_dir=run_dir, data_dir=data_dir)
        for name, folder in made:
            say(f"{name}: {folder}")
        if arguments.push is not None:
            push(made[0][1], arguments.push)
            say(f"{made[0][0]}: uploaded to https://huggingface.co/datasets/{arguments.push}")

    return _said(built)


def data_inspect(arguments: argparse.Namespace) -> int:
    """Show what a dataset holds. Nobody is asked for the benchmarks that are looked for, unless the user says so."""
    from smallwit.network import hub, offline

    if arguments.offline:
        if arguments.download:
            raise UserError("--offline and --download exclude each other; give one of them")
        offline.enable()
    from smallwit.data.inspect import dataset_folder, inspect, show
    from smallwit.models.tokenizer import load_tokenizer
    from smallwit.report.dataset import write_dataset_page

    tokenizer = load_tokenizer(arguments.tokenizer) if arguments.tokenizer is not None else None
    if not arguments.download:
        hub.leave_alone()
    found = inspect(dataset_folder(arguments.dataset), tokenizer, data_dir_of(arguments.data_dir))
    write_dataset_page(found, arguments.page)
    show(found)
    say(f"page: {arguments.page}")
    return 0


def data_validate(arguments: argparse.Namespace) -> int:
    """Say which rows of a file are bad."""
    from smallwit.data.validate import COMMON_CONTROL_TOKENS, validate

    pattern = COMMON_CONTROL_TOKENS
    if arguments.tokenizer is not None:
        from smallwit.models.chat import ChatTokenizer

        pattern = ChatTokenizer.load(arguments.tokenizer).control.pattern
    file, found = arguments.file, validate(arguments.file, pattern)
    for bad in found.bad:
        say(bad)
    if found.bad_rows > len(found.bad):
        say(f"{file}: {found.bad_rows - len(found.bad):,} more bad rows")
    for line, token in found.spelling:
        say(f"{file}:{line}: spells the control token {token}")
    if found.spelling_rows:
        rule = "they are read as text, unless the model's control_tokens is 'refuse'"
        say(f"{file}: {found.spelling_rows:,} rows spell control tokens; {rule}")
    if found.unread:
        names = ", ".join(f"{name[:60]!r}" for name in sorted(found.unread)[:20])
        say(f"{file}: columns that no stage reads: {names}{' and more' if len(found.unread) > 20 else ''}")
    if found.bad_rows or not found.rows:
        what = f"{found.bad_rows:,} of {found.rows:,} rows are bad; mend or remove them"
        raise UserError(f"{file}: {what if found.rows else 'the file holds no rows'}")
    say(f"{file}: {found.rows:,} rows, all good")
    return 0


def _said(work: Callable[[], object]) -> int:
    """Do what a command is for; when a stage fails, say why."""
    from smallwit.pipeline.scheduler import StageFailed

    try:
        work()
    except StageFailed as error:
        # The message holds the traceback of the stage's own process; ours would only hide it.
        say(f"smallwit: {error}", sys.stderr)
        return 1
    return 0


def _begin(arguments: argparse.Namespace) -> None:
    """What holds for a command and for all the processes that it starts."""
    _consent(arguments)
    # Before anything else: the Hugging Face libraries read their settings once, when they are imported.
    from smallwit.network import hosts, offline

    if arguments.offline:
        offline.enable()
    hosts.watch()


def _consent(arguments: argparse.Namespace) -> None:
    from smallwit.verify import consent

    if arguments.allow_unsafe_code:
        consent.allow()


def model_new(arguments: argparse.Namespace) -> int:
    """Make a model folder with random weights."""
    from smallwit.models.build import new_like

    parameters = new_like(
        arguments.like,
        arguments.tokenizer,
        arguments.out,
        vocabulary_rows=arguments.vocabulary_rows,
        seed=arguments.seed,
        dtype=arguments.dtype,
    )
    say(f"{arguments.out}: {parameters:,} parameters with random weights")
    return 0


def grade(arguments: argparse.Namespace) -> int:
    """Grade a file of responses."""
    from smallwit.evaluation.grade import grade

    if arguments.kind == "code":
        _consent(arguments)
    return grade(arguments.kind, arguments.source, arguments.out, arguments.timeout, arguments.workers)


def report(arguments: argparse.Namespace) -> int:
    """Write a run's report again."""
    results = arguments.run_dir / "results.json"
    if not results.is_file():
        raise UserError(f"{arguments.run_dir}: holds no results.json; name the folder of a run that has ended")
    import json

    from smallwit.console.terminal import Terminal
    from smallwit.report.html import write_report
    from smallwit.report.table import print_summary

    write_report(arguments.run_dir)
    print_summary(json.loads(results.read_text(encoding="utf-8")), arguments.run_dir / "report.html", Terminal())
    return 0


def compare(arguments: argparse.Namespace) -> int:
    """Compare two evaluations."""
    from smallwit.console.terminal import Terminal
    from smallwit.evaluation.compare import compare

    compare(
        arguments.a,
        arguments.b,
        Terminal(),
        json_out=arguments.json,
        problems_out=arguments.problems,
        across_protocols=arguments.across_protocols,
    )
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """Show what of this machine will be used."""
    from smallwit.doctor import examine, show

    show(examine(data_dir_of(arguments.data_dir)))
    return 0
