"""Finished rows, kept in a file so that they are not computed again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kip_flax.runtime import files
from kip_flax.runtime.errors import UserError

Row = dict[str, Any]


class Kept:
    """Rows by name, in a file that appears whole or not at all.

    Args:
        path: the file.
        settings: JSON values that all rows depend on.

    Raises:
        UserError: the file holds rows of other settings, or cannot be read.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self._path, self._settings = path, json.loads(json.dumps(settings))
        self.rows: dict[str, Row] = {}
        self.read()

    def read(self) -> None:
        """Reads the rows of the file; raises UserError as when it is made."""
        path = self._path
        if not path.exists():
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            known, self.rows = found["settings"], found["rows"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} holds no results ({type(error).__name__}): remove it, or take another "
                f"--runs."
            ) from None
        if known != self._settings:
            other = [k for k in {*known, *self._settings} if known.get(k) != self._settings.get(k)]
            raise UserError(
                f"{path} holds another search ({', '.join(sorted(other))} differ): take another "
                f"--runs."
            )

    def row(self, name: str, compute: Callable[[], Row]) -> Row:
        """The row `name`, which is computed and kept if it is not there."""
        if name not in self.rows:
            self.keep(name, compute())
        return self.rows[name]

    def keep(self, name: str, row: Row) -> None:
        """Keeps `row` in the place of an earlier one."""
        self.rows[name] = row
        files.write_json(self._path, {"settings": self._settings, "rows": self.rows})
