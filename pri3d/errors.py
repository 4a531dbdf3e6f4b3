"""The one exception that a user is meant to read."""


class Pri3DError(Exception):
    """Something the user can act on: one sentence with what, where and what to do.

    The command line prints it as a single line and exits with status 1; everything else that is
    raised is a fault of this software and keeps its traceback.
    """
