"""history.csv: what the steps of a run measured, one row for every line of progress.

A spreadsheet and the report read it; TensorBoard has the same figures in a form of its own.
"""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from kip_flax.runtime import files

FILE = "history.csv"
Row = dict[str, float]


def read(workdir: str | os.PathLike[str], last_step: float = float("inf")) -> list[Row]:
    """Rows of the folder up to `last_step`, each with `step`; none where there is no such file.

    A row or an entry that cannot be read is left out: the file serves to look at, no more.
    """
    try:
        text = (Path(workdir) / FILE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return []
    rows = [_numbers(row) for row in csv.DictReader(text.splitlines())]
    return [row for row in rows if "step" in row and row["step"] <= last_step]


def write(workdir: str | os.PathLike[str], rows: Sequence[Mapping[str, float]]) -> None:
    """Writes all rows, atomically; a column for every name in them, `step` first.

    Raises:
        UserError: the file cannot be written.
    """
    columns = list(dict.fromkeys(("step", *(name for row in rows for name in row))))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.9g}" for name, value in row.items()} for row in rows)
    files.write_bytes_atomic(Path(workdir) / FILE, text.getvalue().encode())


def _numbers(row: Mapping[str | None, str | None]) -> Row:
    numbers: Row = {}
    for name, value in row.items():
        try:
            numbers[str(name)] = float(value or "")
        except (TypeError, ValueError):
            continue
    return numbers
