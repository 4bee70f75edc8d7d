"""The one exception that speaks to users."""


class UserError(ValueError):
    """A mistake the user can mend: one line saying what is wrong, what is allowed, what to do.

    `main.py` prints the line without a traceback and exits with code 2.
    """
