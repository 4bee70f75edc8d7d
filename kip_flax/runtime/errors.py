"""The exception for mistakes that users can fix, and a program's end by one."""

import contextlib
import sys
from collections.abc import Iterator


class UserError(ValueError):
    """A mistake the user can fix: one line on what is wrong, what is allowed and what to do.

    `main.py` prints the line without a traceback and exits with code 2.
    """


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """A user's mistake ends the program in one line on stderr, with exit code 1."""
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")
