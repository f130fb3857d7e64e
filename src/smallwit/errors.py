"""The one exception for input that a person can mend."""


class UserError(Exception):
    """What the user gave is wrong. The message is one line: where it is, what came, how to mend it.

    The command line prints the message without a traceback and exits with status 2.
    """
