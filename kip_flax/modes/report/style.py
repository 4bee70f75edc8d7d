"""The rules of the style sheet that belong to one run: tiles, and the pictures that they show.

A tile is a window onto a picture of many; which picture it is, a rule says by the step.
"""

import math
from html import escape

import numpy as np

from kip_flax.modes.report import sprites as report_sprites
from kip_flax.modes.report.facts import Facts

_WIDE, _NARROW, _SMALL = 88, 68, 64  # Pixels of a picture's longer side, at most.
_NEAR_PIXELS = 400_000  # Of the neighbours' pictures; of more, some are shown.


def style(run: Facts, uid: str) -> str:
    """The rules that give a run's tiles their size and their pictures, one picture per step."""
    if not run.frames:
        return ""
    height, width = run.image_shape[:2]
    wide, narrow, small = (_scale(max(height, width), side) for side in (_WIDE, _NARROW, _SMALL))
    rendering = "pixelated" if wide >= 1 else "auto"
    across = report_sprites.columns(len(run.rows))
    rules = [
        f"#{uid}{{--w:{width};--h:{height};--across:{across};--rendering:{rendering};"
        f"--k-wide:{wide:g};--k-narrow:{narrow:g};--k-small:{small:g}}}"
    ]
    first, last = run.frames[0].step, run.frames[-1].step
    for frame in run.frames:
        selectors = [f'#{uid}[data-step="{frame.step}"] .now']
        selectors += [f"#{uid} .before"] if frame.step == first else []
        selectors += [f"#{uid} .last"] if frame.step == last else []
        url = report_sprites.data_url(frame.png)
        rules.append(f"{','.join(selectors)}{{background-image:url({url})}}")
    rules += [_neighbours(run, uid)] if run.analysis is not None else []
    return "\n".join(rules)


def tile(kind: str, at: int, count: int, alt: str) -> str:
    """A window onto picture number `at` of the `count` that the rule of class `kind` shows."""
    row, column = divmod(at, report_sprites.columns(count))
    return (
        f'<div class="tile {kind}" role="img" aria-label="{escape(alt)}" '
        f'style="--c:{column};--r:{row}"></div>'
    )


def near_rows(run: Facts) -> np.ndarray:
    """Which of the images with neighbours are shown: those of the cards, evenly where too many."""
    assert run.analysis is not None
    known = np.flatnonzero(np.isin(run.analysis["nearest_rows"], run.rows))
    pixels = run.analysis["nearest_pixels"].shape[1] * run.image_shape[0] * run.image_shape[1]
    return known[report_sprites.spread(len(known), max(1, _NEAR_PIXELS // pixels))]


def _neighbours(run: Facts, uid: str) -> str:
    assert run.analysis is not None
    pixels = run.analysis["nearest_pixels"][near_rows(run)] / 255
    pixels = pixels.reshape(-1, *pixels.shape[2:])
    url = report_sprites.data_url(report_sprites.encode(pixels, pixels.size > _NEAR_PIXELS))
    across = report_sprites.columns(len(pixels))
    return f"#{uid} .real{{--across:{across};background-image:url({url})}}"


def _scale(side: int, most: int) -> float:
    """Screen pixels of an image's pixel: whole where it fits, so that all are of one size."""
    return math.floor(most / side) if most >= side else most / side
