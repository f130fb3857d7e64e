"""The command line: one command a verb.

Exit status: 0 done, 2 the user's input is wrong (one line on stderr), 130 interrupted, 1 anything else (a traceback).
Heavy libraries are imported inside the commands, so that help comes at once.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from smallwit import __version__, commands
from smallwit.console.sanitize import guard_log, say
from smallwit.console.symbols import spell_output
from smallwit.errors import UserError
from smallwit.storage.paths import path_of
from smallwit.suggestions import hint

# The words that may follow each other, for a message when one is mistyped.
COMMANDS: dict[str, dict[str, dict[str, Any]]] = {
    "run": {},
    "teach": {},
    "eval": {},
    "data": {"build": {}, "inspect": {}, "validate": {}},
    "model": {"new": {}},
    "grade": {"math": {}, "code": {}},
    "report": {},
    "compare": {},
    "doctor": {},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. Errors that are not the user's leave as exceptions."""
    words = list(sys.argv[1:] if argv is None else argv)
    spell_output()
    guard_log()
    try:
        _check_command(words)
        arguments, unknown = _parser().parse_known_args(words)
        if unknown:
            options = [word for word in arguments.options if word.startswith("--")]
            raise UserError(f"unknown argument '{unknown[0]}'; {hint(unknown[0].split('=')[0], options, 'options')}")
        for name, value in vars(arguments).items():
            if isinstance(value, Path):
                setattr(arguments, name, path_of(value))
        return arguments.command(arguments)
    except UserError as error:
        say(f"smallwit: {' '.join(str(error).split())}", sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("smallwit: interrupted; run the same command again to go on from here", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def _check_command(words: Sequence[str]) -> None:
    expected: dict[str, Any] = COMMANDS
    prog = "smallwit"
    for word in words:
        if not expected or word.startswith("-"):
            return
        if word not in expected:
            raise UserError(f"{prog} has no command '{word}'; {hint(word, expected, 'commands')}")
        expected, prog = expected[word], f"{prog} {word}"
    if expected:
        raise UserError(f"{prog} needs a command: {', '.join(expected)}; see {prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="smallwit", description="Train and measure small reasoning models by one recipe.")
    parser.add_argument("--version", action="version", version=f"smallwit {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = verbs.add_parser("run", help="run a recipe, or go on with it", description="Run a recipe, or go on with it.")
    _add_recipe_arguments(run)
    run.add_argument("--dry-run", action="store_true", help="print the recipe with every default filled in, and stop")
    run.add_argument("--smoke", action="store_true", help="two steps of every stage, to see that it all fits")
    run.set_defaults(command=commands.run, options=_options(run))

    about = "Run a recipe's teacher_logprobs stages, and what they need, and stop."
    teach = verbs.add_parser("teach", help="store what a recipe's teachers know", description=about)
    _add_recipe_arguments(teach)
    teach.set_defaults(command=commands.teach, options=_options(teach))

    about = "Measure a model, or stored responses, on benchmarks by one protocol."
    evaluation = verbs.add_parser("eval", help="measure a model on benchmarks", description=about)
    _add_eval_arguments(evaluation)
    evaluation.set_defaults(command=commands.eval, options=_options(evaluation))

    data = verbs.add_parser("data", help="build datasets and look at them", description="Build datasets.")
    verbs_of_data = data.add_subparsers(metavar="COMMAND", required=True)
    about = "Run a recipe's dataset stages, and what they need, and stop."
    build = verbs_of_data.add_parser("build", help="build a recipe's datasets", description=about)
    _add_recipe_arguments(build)
    build.add_argument(
        "--push", metavar="REPO", help="then upload the dataset to this repository of the hub, privately"
    )
    build.set_defaults(command=commands.data_build, options=_options(build))
    about = "Show what a dataset holds: counts, lengths, repeats, contamination, twenty rows."
    inspect = verbs_of_data.add_parser("inspect", help="show what a dataset holds", description=about)
    inspect.add_argument("dataset", metavar="DATASET", help="a folder, or runs/NAME:STAGE")
    inspect.add_argument("--tokenizer", metavar="DIR", help="count tokens by this folder's or hub model's tokenizer")
    inspect.add_argument(
        "--page", metavar="FILE", type=Path, default=Path("dataset.html"), help="the page (dataset.html)"
    )
    inspect.add_argument("--data-dir", metavar="D", type=Path, help="folder with benchmark files ($SMALLWIT_DATA_DIR)")
    inspect.add_argument(
        "--download", action="store_true", help="get benchmarks that are not on this disk from the Hugging Face hub"
    )
    inspect.add_argument("--offline", action="store_true", help="refuse every connection to another machine")
    inspect.set_defaults(command=commands.data_inspect, options=_options(inspect))
    about = "Say of each bad row of a file where it is and what is wrong with it."
    validate = verbs_of_data.add_parser("validate", help="check the rows of a file", description=about)
    validate.add_argument(
        "file", metavar="FILE", type=Path, help="what gather reads: JSONL, JSON, CSV, TSV, parquet, save_to_disk"
    )
    about = "a folder or hub model whose control tokens are looked for (common ones)"
    validate.add_argument("--tokenizer", metavar="DIR", help=about)
    validate.set_defaults(command=commands.data_validate, options=_options(validate))

    model = verbs.add_parser("model", help="make model folders", description="Make model folders.")
    new = model.add_subparsers(metavar="COMMAND", required=True).add_parser(
        "new", help="a model with random weights", description="Make a model folder with random weights."
    )
    new.add_argument("out", metavar="OUT", type=Path, help="the new folder")
    new.add_argument("--like", required=True, metavar="NAME", help="a published model's shape, as qwen2.5-0.5b")
    new.add_argument("--tokenizer", required=True, metavar="DIR", type=Path, help="folder that holds its tokenizer")
    new.add_argument("--vocabulary-rows", metavar="N", type=_positive, help="rows of the embedding (the shape's own)")
    new.add_argument("--seed", metavar="S", type=int, default=0, help="of the random weights (0)")
    new.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the weights (float32)")
    new.set_defaults(command=commands.model_new, options=_options(new))

    about = "Grade responses with the verifiers of training and evaluation. Run it again to go on after an interrupt."
    grade = verbs.add_parser("grade", help="grade a file of responses", description=about)
    kinds = grade.add_subparsers(metavar="COMMAND", required=True)
    for kind, row, seconds, per in (
        ("math", '{"id", "gold", "response"}', 3, "the formulas of one answer"),
        ("code", '{"id", "prompt", "entry_point", "response", "tests", "setup"?}', 10, "one program"),
    ):
        about = f"Grade JSONL rows {row}."
        each = kinds.add_parser(kind, help=about, description=about)
        each.add_argument("source", metavar="IN", type=Path, help="the rows, as JSONL")
        each.add_argument("out", metavar="OUT", type=Path, help="the same rows with their verdicts, as JSONL")
        each.add_argument(
            "--timeout", metavar="SECONDS", type=float, default=float(seconds), help=f"CPU time of {per} ({seconds})"
        )
        each.add_argument("--workers", metavar="N", type=_positive, help="processes at a time (the cores)")
        if kind == "code":
            _add_consent(each)
        each.set_defaults(command=commands.grade, kind=kind, options=_options(each))

    report = verbs.add_parser("report", help="write a run's report again", description="Write a run's report again.")
    report.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="a run's folder, as runs/quickstart")
    report.set_defaults(command=commands.report, options=_options(report))

    about = "Compare two evaluations problem by problem: A - B with its interval, tests, and what was won and lost."
    compare = verbs.add_parser("compare", help="compare two evaluations problem by problem", description=about)
    for name in ("a", "b"):
        where = "a folder of smallwit eval, or a run's stage as runs/NAME:STAGE"
        compare.add_argument(name, metavar=name.upper(), help=where)
    compare.add_argument("--json", metavar="OUT", type=Path, help="write the numbers as JSON")
    compare.add_argument("--problems", metavar="OUT", type=Path, help="write won, lost and tied problems as JSONL")
    compare.add_argument(
        "--across-protocols", action="store_true", help="go on although the protocols differ: no fair comparison"
    )
    compare.set_defaults(command=commands.compare, options=_options(compare))

    about = "Show what of this machine will be used."
    doctor = verbs.add_parser("doctor", help="show what of this machine will be used", description=about)
    doctor.add_argument("--data-dir", metavar="D", type=Path, help="folder with benchmark files ($SMALLWIT_DATA_DIR)")
    doctor.set_defaults(command=commands.doctor, options=_options(doctor))
    return parser


def _add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of every command that works on a recipe."""
    parser.add_argument("recipe", metavar="RECIPE", type=Path, help="a YAML file")
    parser.add_argument("--run-dir", metavar="D", type=Path, help="folder of this run (runs/NAME)")
    parser.add_argument("--data-dir", metavar="D", type=Path, help="folder with benchmark files ($SMALLWIT_DATA_DIR)")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="override, for example stages.rl.steps=10"
    )
    parser.add_argument("--offline", action="store_true", help="refuse every connection to another machine")
    _add_consent(parser)


def _add_consent(parser: argparse.ArgumentParser) -> None:
    """That of every command that may run programs of a model."""
    about = "run programs that a model wrote on a machine that isolates them less than by namespaces"
    parser.add_argument("--allow-unsafe-code", action="store_true", help=about)


def _add_eval_arguments(parser: argparse.ArgumentParser) -> None:
    what = "a folder, a hub id, runs/NAME:STAGE, or openai:URL#model"
    parser.add_argument("model", metavar="MODEL", nargs="?", help=what)
    parser.add_argument("--responses", metavar="FILE", type=Path, help="stored generations to grade, in place of MODEL")
    parser.add_argument("--suite", metavar="A,B", required=True, help="tasks, or path/to/file.py:ClassName")
    parser.add_argument("--protocol", metavar="NAME", default="default", help="how tasks are asked and read (default)")
    parser.add_argument("--samples", metavar="K", type=_positive, default=1, help="responses to each problem (1)")
    parser.add_argument("--temperature", metavar="T", type=_not_negative, help="0 is greedy (the protocol's)")
    parser.add_argument("--max-new-tokens", metavar="N", type=_positive, help="of a response (the protocol's)")
    parser.add_argument("--limit", metavar="N", type=_positive, help="problems of each suite, from its start (all)")
    parser.add_argument("--split", choices=("test", "validation", "train"), default="test", help="(test)")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="of the samples' random streams (0)")
    parser.add_argument("--against", metavar="MODEL", help="give per cent of this model's score too")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder of samples and scores (evaluations/...)")
    parser.add_argument("--batch", metavar="N", type=_positive, default=64, help="sequences in flight (64)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="(auto)")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="(auto)")
    about = "options of the chat template, as '{\"enable_thinking\": false}' (those of the model's run)"
    parser.add_argument("--chat-template-kwargs", metavar="JSON", type=_template_kwargs, default={}, help=about)
    parser.add_argument("--data-dir", metavar="D", type=Path, help="folder with benchmark files ($SMALLWIT_DATA_DIR)")
    parser.add_argument("--offline", action="store_true", help="refuse every connection to another machine")
    _add_consent(parser)


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [option for action in parser._actions for option in action.option_strings]


def _template_kwargs(text: str) -> dict[str, Any]:
    from smallwit.recipe.model import check_template_kwargs

    try:
        options = json.loads(text)
        if not isinstance(options, dict):
            raise ValueError('give a JSON object, as {"enable_thinking": false}')
        return check_template_kwargs(options)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"invalid number '{text}'; give a whole number above 0")
    return int(text)


def _not_negative(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError(text)
    return number
