"""A comparison as files: markdown, csv, and one html page with the pictures in it."""

import base64
import html
import io
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from kip_flax.modes.compare import table as compare_table
from kip_flax.modes.compare.table import BEST, TIE, Line
from kip_flax.runtime.files import write_bytes_atomic

FILES = ("comparison.md", "comparison.csv", "comparison.html")
_MOST, _COLUMNS, _GAP = 100, 10, 1  # Pictures of a set, in a row, and pixels between them.

_STYLE = """
:root { color-scheme: light dark; --ink: #202124; --soft: #5f6368; --line: #dadce0; --paper: #fff;
  --best: #e6f4ea; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #9aa0a6; --line: #3c4043;
  --paper: #17181a; --best: #1e3a2a; } }
body { margin: 2rem auto; max-width: 80rem; padding: 0 1rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; white-space: nowrap; }
td.best { background: var(--best); font-weight: 600; }
figure { display: inline-block; margin: 0 1.5rem 1.5rem 0; vertical-align: top; }
figcaption, footer, .soft { color: var(--soft); font-size: .875rem; }
img { image-rendering: pixelated; max-width: 100%; height: auto; }
"""


def write(
    workdir: str, lines: Sequence[Line], networks: Sequence[str], notes: Sequence[str], dataset: str
) -> None:
    """Writes `FILES` into `workdir`, each whole or not at all."""
    table = compare_table.markdown(lines, networks, dataset)
    text = "\n".join([table, "", compare_table.LEGEND, *(f"\n{note}" for note in notes), ""])
    contents = (
        text,
        compare_table.comma_separated(lines, networks),
        page(lines, networks, notes, dataset),
    )
    for name, content in zip(FILES, contents, strict=True):
        write_bytes_atomic(os.path.join(workdir, name), content.encode())


def page(lines: Sequence[Line], networks: Sequence[str], notes: Sequence[str], dataset: str) -> str:
    """The page; it needs nothing besides itself."""
    title = f"Distilled sets of {html.escape(dataset)}, compared"
    heads = "".join(
        f'<th scope="col">{html.escape(head)}</th>' for head in compare_table.columns(networks)
    )
    rows = "\n".join(_row(line, networks, dataset) for line in compare_table.ordered(lines))
    figures = "\n".join(_figure(line) for line in compare_table.ordered(lines))
    told = "\n".join(f"<p>{html.escape(note)}</p>" for note in (compare_table.LEGEND, *notes))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<div class="wide" role="region" aria-label="Table of the sets" tabindex="0">
<table>
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>
<h2>The sets</h2>
{figures}
</main>
<footer>
{told}
</footer>
</body>
</html>
"""


def _row(line: Line, networks: Sequence[str], dataset: str) -> str:
    told = compare_table.cells(line, networks, dataset)
    parts = []
    for place, cell in enumerate(told):
        network = networks[place - 4] if 4 <= place < 4 + len(networks) else None
        marked = line.marks.get(network, "") if network else ""
        text = html.escape(cell)
        if marked == BEST:
            parts.append(f'<td class="best">{text} <span class="soft">best</span></td>')
        elif marked == TIE:
            parts.append(f'<td>≈ {text} <span class="soft">tie</span></td>')
        else:
            parts.append(f"<td>{text}</td>")
    return f"<tr>{''.join(parts)}</tr>"


def _figure(line: Line) -> str:
    shown = line.pictures[:_MOST]
    sheet = _sheet(shown)
    data = io.BytesIO()
    sheet.save(data, "PNG")
    source = base64.b64encode(data.getvalue()).decode()
    scale = max(1, 320 // sheet.width)
    words = f"{line.made.title}, {compare_table.per_class(line)} per class"
    more = f"; the first {len(shown)} of {line.size}" if len(shown) < line.size else ""
    return (
        f'<figure><img src="data:image/png;base64,{source}" width="{scale * sheet.width}" '
        f'height="{scale * sheet.height}" alt="{html.escape(words)}: {len(shown)} images">'
        f"<figcaption>{html.escape(words + more)}</figcaption></figure>"
    )


def _sheet(pictures: np.ndarray) -> Image.Image:
    """Pictures (S, H, W, C) in about [0, 1] in rows of ten."""
    count, height, width, channels = pictures.shape
    if channels != 3:
        pictures = np.repeat(pictures.mean(axis=-1, keepdims=True), 3, axis=-1)
    pixels = np.rint(255 * np.clip(np.nan_to_num(pictures), 0, 1)).astype(np.uint8)
    columns = min(_COLUMNS, count)
    rows = -(-count // columns)
    sheet = np.zeros((rows * (height + _GAP), columns * (width + _GAP), 3), np.uint8)
    for number, picture in enumerate(pixels):
        top, left = (number // columns) * (height + _GAP), (number % columns) * (width + _GAP)
        sheet[top : top + height, left : left + width] = picture
    return Image.fromarray(sheet[: -_GAP or None, : -_GAP or None])
