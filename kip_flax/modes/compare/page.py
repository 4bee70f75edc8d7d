"""The files of a comparison: markdown, csv, and one html page with pictures."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from kip_flax.export import pictures
from kip_flax.modes import pages
from kip_flax.modes.compare import table as compare_table
from kip_flax.modes.compare.table import Line
from kip_flax.runtime.files import write_bytes_atomic

FILES = ("comparison.md", "comparison.csv", "comparison.html")
_MOST, _COLUMNS, _GAP = 100, 10, 1  # Most pictures of a set; pictures in a row; pixels between.


class Sheet(NamedTuple):
    """The first pictures of a set as one PNG, `width` x `height` pixels on the screen."""

    title: str
    png: bytes
    width: int
    height: int
    shown: int
    size: int


def write(
    workdir: str, lines: Sequence[Line], networks: Sequence[str], notes: Sequence[str], dataset: str
) -> None:
    """Writes `FILES` into `workdir`, each atomically; UserError if one cannot be written."""
    table = compare_table.markdown(lines, networks, dataset)
    text = "\n".join([table, "", compare_table.LEGEND, *(f"\n{note}" for note in notes), ""])
    contents = (
        text,
        compare_table.comma_separated(lines, networks),
        page(lines, networks, notes, dataset),
    )
    for name, content in zip(FILES, contents, strict=True):
        write_bytes_atomic(os.path.join(workdir, name), content.encode(errors="backslashreplace"))


def page(lines: Sequence[Line], networks: Sequence[str], notes: Sequence[str], dataset: str) -> str:
    """The HTML page, self-contained."""
    ordered = compare_table.ordered(lines)
    return pages.render(
        __package__,
        "compare.html.jinja",
        dataset=dataset,
        heads=compare_table.columns(networks),
        rows=[_row(line, networks, dataset) for line in ordered],
        sheets=[_sheet(line) for line in ordered],
        notes=(compare_table.LEGEND, *notes),
    )


def _row(line: Line, networks: Sequence[str], dataset: str) -> list[tuple[str, str]]:
    """Text of each cell, and its mark: 'best', 'tie' or ''."""
    marks = {name: line.marks.get(name, "") for name in networks}
    cells = compare_table.cells(line, networks, dataset)
    heads = compare_table.columns(networks)
    return [(text, marks.get(head, "")) for head, text in zip(heads, cells, strict=True)]


def _sheet(line: Line) -> Sheet:
    shown = line.pictures[:_MOST]
    pixels = pictures.sheet(pictures.to_uint8(pictures.rgb(shown)), _COLUMNS, _GAP)
    height, width = pixels.shape[:2]
    scale = max(1, 320 // width)
    return Sheet(
        title=f"{line.made.title}, {compare_table.images_per_class(line)} per class",
        png=pictures.png_bytes(pixels),
        width=scale * width,
        height=scale * height,
        shown=len(shown),
        size=line.size,
    )
