"""A picture for people: support images before and after distillation, with their labels."""

import io
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kip_flax.runtime.files import write_bytes_atomic

MAX_IMAGES = 200
_TILE, _GAP, _TITLE, _CAPTION = 96, 8, 76, 30
_BACKGROUND, _INK, _SOFT = "white", "#202124", "#70757a"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def write_image_grid(
    path: str | os.PathLike[str],
    initial: np.ndarray,
    learned: np.ndarray,
    initial_labels: np.ndarray,
    learned_labels: np.ndarray,
    class_names: Sequence[str],
    columns: int | None = None,
) -> None:
    """Writes what `draw_image_grid` draws as PNG to `path`; UserError if it cannot be written."""
    sets = (initial, learned, initial_labels, learned_labels)
    write_png(path, draw_image_grid(*sets, class_names, columns))


def write_png(path: str | os.PathLike[str], picture: Image.Image) -> None:
    """Writes a picture as PNG, atomically; UserError if it cannot be written."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_bytes_atomic(path, buffer.getvalue())


def draw_image_grid(
    initial: np.ndarray,
    learned: np.ndarray,
    initial_labels: np.ndarray,
    learned_labels: np.ndarray,
    class_names: Sequence[str],
    columns: int | None = None,
) -> Image.Image:
    """Draws rows of initial images, each above the row of what was learned from them.

    Under every picture stand the class of its largest label and that label's value.

    Args:
        initial, learned: (S, H, W, channels) in about [0, 1]; beyond is clipped. One channel, or
            more than three (their mean), is shown in grey.
        initial_labels, learned_labels: (S, C).
        class_names: C names; long ones are shortened.
        columns: pictures in a row; None takes 10, or 20 for more than 100 pictures. Of more than
            `MAX_IMAGES` the first ones are shown.
    """
    count = min(len(initial), MAX_IMAGES)
    columns = min(count, columns or (10 if count <= 100 else 20))
    scale = max(1, -(-_TILE // max(initial.shape[1:3])))
    height, width = initial.shape[1] * scale, initial.shape[2] * scale
    row_height = height + _CAPTION
    block_height = 2 * row_height + 2 * _GAP
    blocks = -(-count // columns)
    size = (_TITLE + columns * (width + _GAP) + _GAP, blocks * block_height + _GAP)
    canvas = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(12)
    rows = (("initial", initial, initial_labels), ("learned", learned, learned_labels))
    for r, (title, images, labels) in enumerate(rows):
        for i in range(count):
            block, column = divmod(i, columns)
            x = _TITLE + column * (width + _GAP)
            y = _GAP + block * block_height + r * row_height
            if column == 0:
                draw.text((_TITLE - 14, y + height / 2), title, _INK, font, anchor="rm")
                if r == 0 and block:
                    draw.line((_GAP, y - _GAP, size[0] - _GAP, y - _GAP), "#dadce0")
            canvas.paste(_tile(images[i], width, height), (x, y))
            best = int(np.argmax(labels[i]))
            caption = (draw, x + width / 2, y + height + 2)
            _write_line(*caption, class_names[best], f"{labels[i][best]:.2f}", width, font)
    return canvas


def _tile(image: np.ndarray, width: int, height: int) -> Image.Image:
    if image.shape[-1] != 3:
        image = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1)
    pixels = np.rint(255 * np.clip(np.nan_to_num(image), 0, 1)).astype(np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)


def _write_line(
    draw: ImageDraw.ImageDraw, x: float, y: float, name: str, value: str, width: int, font: Font
) -> None:
    """Writes "name value" centred at x, with the name shortened until both fit in `width`."""
    gap = 5
    room = width - gap - draw.textlength(value, font)
    short = name
    while draw.textlength(short, font) > room and len(short) > 2:
        short = short[:-2].rstrip() + "…"
    name_width = draw.textlength(short, font)
    x -= (name_width + gap + draw.textlength(value, font)) / 2
    draw.text((x, y), short, _INK, font)
    draw.text((x + name_width + gap, y), value, _SOFT, font)
