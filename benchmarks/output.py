"""The file that a benchmark writes where `--json` asks for it."""

import sys
from typing import Any

from kip_flax.runtime import files, hardware


def write(path: str, rows: list[dict[str, Any]], **more: Any) -> None:
    """Writes the rows, the machine, the command and `more` as JSON; nothing if `path` is ''."""
    if path:
        result = {"machine": hardware.hardware(), "rows": rows, "command": " ".join(sys.argv)}
        files.write_json(path, result | more)
