"""The exceptions that the command line shows as one line, without a traceback."""


class UserError(Exception):
    """An error in the user's input. The message is one line: the place, the value, the remedy.

    The command line prints the message without a traceback and exits with status 2.
    """


class RunFailed(Exception):
    """A run cannot go on although the user's input is right (exit status 1). Published artifacts stay."""
