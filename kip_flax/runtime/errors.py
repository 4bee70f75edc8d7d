"""The exception for mistakes that users can fix."""


class UserError(ValueError):
    """A mistake the user can fix: one line on what is wrong, what is allowed and what to do.

    `main.py` prints the line without a traceback and exits with code 2.
    """
