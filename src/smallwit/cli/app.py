"""The tree of commands. A module of this package adds a command by `@app.command(...)`, a group by `app.add_typer`.

All modules are imported to print help, so they import heavy libraries inside the commands.
"""

import importlib
import pkgutil
from functools import cache
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from smallwit import __version__
from smallwit.errors import UserError
from smallwit.suggestions import hint

PROGRAM = "smallwit"

TRAIN, MEASURE, USE, DATA, SET_UP = "Train", "Measure", "Use", "Data", "Set up"
TOPICS = (TRAIN, MEASURE, USE, DATA, SET_UP)
"""Headings of the help, in this order. A command names its own as `rich_help_panel`."""

RENAMED = {"teach": "teacher-logprobs"}
"""Commands of earlier versions, and what they are called now."""


class CommandGroup(TyperGroup):
    """A group whose help is sorted by topic and whose errors name the nearest command."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands, by topic and then by name."""
        return sorted(self.commands, key=lambda name: (TOPICS.index(self._topic(name)), name))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section of the help for each topic."""
        for topic in TOPICS:
            names = [name for name in self.list_commands(ctx) if self._topic(name) == topic]
            if names:
                heading = topic if len(self.commands) > len(names) else "Commands"
                with formatter.section(heading):
                    formatter.write_dl([(name, self.commands[name].get_short_help_str(80)) for name in names])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options of the group. Raises `UserError` where no command follows."""
        if not args and not ctx.resilient_parsing:
            known = ", ".join(self.list_commands(ctx))
            raise UserError(f"{ctx.command_path} needs a command: {known}; see {ctx.command_path} --help")
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the first word names. Raises `UserError` with the nearest name."""
        word = args[0]
        if word not in self.commands and not ctx.resilient_parsing:
            renamed = f"it is called '{RENAMED[word]}' now" if word in RENAMED else None
            advice = renamed or hint(word, self.list_commands(ctx), "commands")
            raise UserError(f"{ctx.command_path} has no command '{word}'; {advice}")
        return super().resolve_command(ctx, args)

    def _topic(self, name: str) -> str:
        topic = getattr(self.commands[name], "rich_help_panel", None)
        return topic if isinstance(topic, str) else TOPICS[0]


app = typer.Typer(cls=CommandGroup, rich_markup_mode=None)


@cache
def command_tree() -> TyperGroup:
    """Return the tree of all commands. Imports the modules of this package."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(module.name)
    tree = typer.main.get_command(app)
    assert isinstance(tree, TyperGroup)
    return tree


def group(help: str) -> typer.Typer:
    """Return a new group of commands, for `app.add_typer`."""
    return typer.Typer(cls=CommandGroup, help=help, rich_markup_mode=None)


def usage_message(error: typer.TyperException) -> str:
    """Return the message for words that the parser refuses, with the nearest option where an option is unknown."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else PROGRAM
    option = getattr(error, "option_name", None)
    if option is not None and hasattr(error, "possibilities"):
        known = (
            [name for parameter in context.command.get_params(context) for name in parameter.opts] if context else []
        )
        return (
            f"unknown option '{option}'; {hint(option, [name for name in known if name.startswith('--')], 'options')}"
        )
    message = error.format_message().rstrip(".").replace("Value error, ", "")  # pydantic's prefix
    return f"{message[:1].lower()}{message[1:]}; see {path} --help"


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def smallwit(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train and measure small reasoning models by one recipe."""
