"""A picture of labels: a small bar chart for every support image, on one scale."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kip_flax.export.image_grid import MAX_IMAGES

_WIDTH, _HEIGHT, _GAP, _CAPTION = 110, 72, 10, 18
_INK, _SOFT, _OTHER, _LARGEST = "#202124", "#70757a", "#9aa0a6", "#1a5fb4"


def draw_label_bars(labels: np.ndarray, class_names: Sequence[str]) -> Image.Image:
    """Draws labels (S, C): one cell per image, one bar per class, below the line where negative.

    The largest label of an image is blue, and named under its cell. All cells have the same scale.
    Of more than `MAX_IMAGES` the first ones are drawn.
    """
    labels = np.asarray(labels, np.float64)[:MAX_IMAGES]
    columns = min(len(labels), 10)
    rows = -(-len(labels) // columns)
    cell = _WIDTH + _GAP, _HEIGHT + _CAPTION + _GAP
    canvas = Image.new("RGB", (columns * cell[0] + _GAP, rows * cell[1] + _GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    low, high = min(0.0, labels.min()), max(0.0, labels.max())
    unit = _HEIGHT / max(high - low, 1e-9)
    for number, row in enumerate(labels):
        left, top = _GAP + cell[0] * (number % columns), _GAP + cell[1] * (number // columns)
        zero, best = top + high * unit, int(np.argmax(row))
        for place, value in enumerate(row):
            ends = sorted((zero, zero - value * unit))
            x0, x1 = (left + _WIDTH * (place + at) / len(row) for at in (0.1, 0.9))
            colour = _LARGEST if place == best else _OTHER
            draw.rectangle((x0, ends[0], max(x0, x1 - 1), ends[1]), fill=colour)
        draw.line((left, zero, left + _WIDTH, zero), _SOFT)
        caption = f"{class_names[best][:10]} {row[best]:.2f}"
        draw.text((left + _WIDTH / 2, top + _HEIGHT + 2), caption, _INK, font, anchor="ma")
    return canvas
