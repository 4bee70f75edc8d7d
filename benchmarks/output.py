"""What benchmarks say: the file that `--json` asks for, and mistakes in one line."""

import sys
from collections.abc import Callable
from typing import Any

from kip_flax.runtime import files, hardware
from kip_flax.runtime.errors import UserError


def in_one_line(main: Callable[[], None]) -> None:
    """Runs `main`; a user's mistake ends the program in one line, not in a traceback."""
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")


def write(path: str, rows: list[dict[str, Any]], **more: Any) -> None:
    """Writes the rows, the machine, the command and `more` as JSON; nothing if `path` is ''."""
    if path:
        result = {"machine": hardware.hardware(), "rows": rows, "command": " ".join(sys.argv)}
        files.write_json(path, result | more)
