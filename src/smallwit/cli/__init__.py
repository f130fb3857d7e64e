"""The command line. Each module of this package that defines a command registers it: see `app`.

Exit status: 0 done, 2 the user's input is wrong (one line on stderr), 130 interrupted, 1 anything else.
"""

import os
import sys
from collections.abc import Sequence

import typer

from smallwit.cli.app import PROGRAM, command_tree, usage_message
from smallwit.console.sanitize import escape_log_output, say
from smallwit.console.symbols import install_encoding_fallbacks
from smallwit.errors import RunFailed, UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. Errors that are not the user's leave as exceptions."""
    words = list(sys.argv[1:] if argv is None else argv)
    install_encoding_fallbacks()
    escape_log_output()
    try:
        tree = command_tree()
        if f"_{PROGRAM.upper()}_COMPLETE" in os.environ:  # a shell asks for completions
            tree.main(words, PROGRAM)
        with tree.make_context(PROGRAM, words) as context:
            return tree.invoke(context) or 0
    except typer.Exit as end:
        return end.exit_code
    except UserError as error:
        say(f"smallwit: {' '.join(str(error).split())}", sys.stderr)
        return 2
    except typer.TyperException as error:
        say(f"smallwit: {' '.join(usage_message(error).split())}", sys.stderr)
        return 2
    except RunFailed as error:
        # The message may hold the traceback of a stage's own process; ours would only hide it.
        say(f"smallwit: {error}", sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read our output has ended. Python would complain once more when it flushes at its own end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("smallwit: interrupted; run the same command again to go on from here", file=sys.stderr)
        return 130
