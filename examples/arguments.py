"""The parser of the examples' command lines."""

import argparse
from pathlib import Path
from typing import NoReturn

from kip_flax.runtime.errors import UserError


def folder(text: str) -> Path:
    """The folder that an option names; the shell leaves ~ in `--runs=~/x` as it is."""
    return Path(text).expanduser()


class Parser(argparse.ArgumentParser):
    """Prints a module's docstring as it is, and reports a mistake in one line.

    Args:
        module: as in `python -m MODULE`.
        description: the module's docstring.
    """

    def __init__(self, module: str, description: str | None):
        super().__init__(
            f"python -m {module}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raises UserError."""
        raise UserError(f"{message}; --help lists the options.")
