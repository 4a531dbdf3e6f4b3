"""The exception that a user is meant to read, and the text of others."""


class Pri3DError(Exception):
    """Something the user can act on: one sentence with what, where and what to do.

    The command line prints it as a single line and exits with status 1; everything else that is
    raised is a fault of this software and keeps its traceback.
    """


def first_line(error: Exception) -> str:
    """The first line of an exception's message; its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
