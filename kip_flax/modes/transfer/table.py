"""The table of a transfer, in transfer.json and on the console, with the worth of the set."""

import json
import os
import shlex
import sys
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from kip_flax import config as config_lib
from kip_flax.modes.transfer import ladder
from kip_flax.modes.transfer.sets import ImageSet
from kip_flax.networks import figures
from kip_flax.networks.recipe import Recipe
from kip_flax.runtime import console, files, hardware
from kip_flax.runtime.errors import UserError

TABLE = "transfer.json"
PICTURE = "worth.png"
DIVERGED = "diverged"  # In place of an accuracy.
_TESTS = "test images (checksum)"


def line(row: dict[str, Any], split: str) -> str:
    """One row, measured on 'test' or 'validation' images, as a line for the console."""
    return (
        f"{row['network']} on {row['size']} {row['set']}: {split} accuracy {figures.spread(row)} "
        f"({console.duration(row['seconds'])})"
    )


class Table:
    """Rows kept in a file in `workdir`, beginning with those of an earlier part of the transfer.

    The folder belongs to this transfer from `begin` on, with what else it keeps.

    Args:
        workdir: the folder.
        identity: JSON values that all rows depend on.
        tests: checksum of the test images; apart, as older tables do not say it.
        distilled: path of the distilled set, or paths of several.
        file: name of the file.

    Raises:
        UserError: the folder holds another transfer, or its file is broken.
    """

    def __init__(
        self,
        workdir: str,
        identity: dict[str, Any],
        tests: int,
        distilled: str | list[str],
        file: str = TABLE,
    ):
        self._workdir, self._path = workdir, os.path.join(workdir, file)
        identity = json.loads(json.dumps(identity))
        tested = {_TESTS: tests}
        self._content: dict[str, Any] = {"distilled": distilled, "identity": identity}
        self._content |= {"tests": tested, "rows": [], "diverged": []}
        earlier = _read(self._path)
        if earlier is not None:
            kind = os.path.splitext(file)[0]
            config_lib.check_same(earlier["identity"], identity, kind, workdir)
            config_lib.check_same(earlier.setdefault("tests", tested), tested, kind, workdir)
            self._content |= earlier

    def begin(self) -> None:
        """Writes the file, when nothing is left to be refused; UserError if it cannot."""
        self._write()

    @property
    def checksum(self) -> int:
        """CRC-32 of the identity."""
        return zlib.crc32(json.dumps(self._content["identity"], sort_keys=True).encode())

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows, in the order in which they were added."""
        return self._content["rows"]

    def has(self, name: str, size: int, network: str) -> bool:
        """Whether the row is in the table, or its training is known to diverge."""
        return self.find(name, size, network) is not None or self.diverged(name, size, network)

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row and writes the file; UserError if it cannot be written."""
        self.rows.append(row)
        self._write()

    def find(self, name: str, size: int, network: str) -> dict[str, Any] | None:
        """The row, or None if the table does not have it."""
        wanted = (name, size, network)
        found = (r for r in self.rows if (r["set"], r["size"], r["network"]) == wanted)
        return next(found, None)

    def add_diverged(self, name: str, size: int, network: str) -> None:
        """Notes that a training diverged with every learning rate, and writes the file."""
        self._content["diverged"].append([name, size, network])
        self._write()

    def diverged(self, name: str, size: int, network: str) -> bool:
        """Whether the training is noted as diverged."""
        return [name, size, network] in self._content["diverged"]

    def check_diverged(
        self, networks: Sequence[str], sets: Sequence[ImageSet], recipe: Recipe
    ) -> None:
        """Raises UserError if trainings of `networks` on `sets` diverged."""
        jobs = [
            f"{network} on {s.size} {s.name}"
            for network in networks
            for s in sets
            if self.diverged(s.name, s.size, network)
        ]
        if jobs:
            field = "lr_factor" if recipe.relative else "learning_rate"
            rates = ", ".join(f"{rate:g}" for rate in recipe.rates)
            raise UserError(
                f"{', '.join(jobs)}: the training diverged with transfer.{field} {rates}: give "
                f"a smaller one, and another --workdir."
            )

    def finish(self, networks: Sequence[str], sets: Sequence[ImageSet]) -> str:
        """The table as text; with a ladder also the set's worth and a figure. Writes the file."""
        names = [f"{s.size} {s.name}" for s in sets]
        lines = [["", *networks]]
        for name, s in zip(names, sets, strict=True):
            lines.append([name, *(self._cell(s, network) for network in networks)])
        text = _aligned(lines)
        if found := ladder.ladders(self.rows):
            self._content["worth"] = {n: ladder.crossing(one) for n, one in found.items()}
            text += "".join(f"\n{n}: {ladder.words(one)}" for n, one in found.items())
            text += f"\npicture {self._draw(found)}"
        self._write()
        return f"{text}\nfigures {self._path}"

    def _draw(self, found: Mapping[str, ladder.Ladder]) -> str:
        from kip_flax.modes.figures import draw  # matplotlib takes half a second to import.

        path = os.path.join(self._workdir, PICTURE)
        files.write_bytes_atomic(path, draw.rendered(draw.worth_figure(found), "png"))
        return path

    def _cell(self, image_set: ImageSet, network: str) -> str:
        key = image_set.name, image_set.size, network
        if row := self.find(*key):
            return figures.spread_in_percent(row)
        return DIVERGED if self.diverged(*key) else ""

    def _write(self) -> None:
        made = {"hardware": hardware.hardware(), "command": shlex.join(sys.argv)}
        content = self._content | made | {"versions": hardware.versions()}
        files.write_json(self._path, content)


def _read(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        rows = {name: list(content.get(name, [])) for name in ("rows", "diverged")}
        tests = {"tests": dict(content["tests"])} if "tests" in content else {}  # Of old ones none.
        return {"identity": dict(content["identity"])} | tests | rows
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"cannot read {path} ({error}): move it away to begin anew.") from None


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in lines)
    return "\n".join(row.rstrip() for row in rows)
