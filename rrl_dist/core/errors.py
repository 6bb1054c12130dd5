"""The user's mistakes, told in one line."""


class UserError(Exception):
    """Something the user can mend: the message says what was found, what to change.

    Commands print it as one line without a traceback and exit with status 2.
    """


class DamagedError(UserError):
    """A file is not as it was written."""
