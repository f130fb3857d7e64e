"""The exceptions that the command line shows as one line, without a traceback."""


class UserError(Exception):
    """What the user gave is wrong. The message is one line: where it is, what came, how to mend it.

    The command line prints the message without a traceback and exits with status 2.
    """


class RunFailed(Exception):
    """A run cannot go on, though the user's input is right: exit status 1. What is published by then stays."""
