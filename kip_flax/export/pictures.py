"""Pictures of distilled sets, with 8 bits a channel: pixels, sheets, PNG files and two drawings.

Pixels that are neither grey nor RGB are shown in grey, as the mean of their channels.
"""

import importlib.util
import io
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kip_flax.runtime.files import write_bytes_atomic

MAX_IMAGES = 200  # In a drawing; of more, the first ones are shown.
_BACKGROUND, _INK, _SOFT, _LINE = "white", "#202124", "#70757a", "#dadce0"
_BAR, _LARGEST_BAR = "#9aa0a6", "#1a5fb4"
_FONT_SIZE = 12

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def text_font(texts: Iterable[str], size: float) -> _Font:
    """A font for `texts`: Pillow's own, or DejaVu Sans if one of them goes beyond ASCII.

    Pillow's own draws a box for each letter beyond ASCII. DejaVu Sans is a part of matplotlib; it
    has the letters of most alphabets, but no Chinese, Japanese or Korean signs.
    """
    ascii_alone = all(text.isascii() for text in texts)
    package = None if ascii_alone else importlib.util.find_spec("matplotlib")
    if package is None or package.origin is None:
        return ImageFont.load_default(size)
    fonts = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(fonts / "DejaVuSans.ttf", size)


def to_uint8(pictures: np.ndarray) -> np.ndarray:
    """Pixels in about [0, 1] as uint8 of the same shape; the rest is clipped, NaN becomes 0."""
    return np.rint(255 * np.clip(np.nan_to_num(pictures), 0, 1)).astype(np.uint8)


def grey_or_rgb(pictures: np.ndarray) -> np.ndarray:
    """Pictures (..., channels) with one or three channels; any other number becomes their mean."""
    if pictures.shape[-1] in (1, 3):
        return pictures
    return pictures.mean(axis=-1, keepdims=True)


def rgb(pictures: np.ndarray) -> np.ndarray:
    """Pictures (..., channels) with three channels: grey ones have the same value in each."""
    pictures = grey_or_rgb(pictures)
    return pictures if pictures.shape[-1] == 3 else np.repeat(pictures, 3, axis=-1)


def sheet(pictures: np.ndarray, columns: int, gap: int = 0, fill: float = 0) -> np.ndarray:
    """Pictures in rows on one sheet.

    Args:
        pictures: (n, H, W, channels) of any type.
        columns: pictures in a row; fewer pictures make a shorter row.
        gap: pixels between pictures.
        fill: value of the pixels between pictures and after the last one.

    Returns:
        (rows * (H + gap) - gap, columns * (W + gap) - gap, channels) of the same type.
    """
    count, height, width, channels = pictures.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    size = rows * (height + gap) - gap, columns * (width + gap) - gap
    canvas = np.full((*size, channels), fill, pictures.dtype)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        top, left = row * (height + gap), column * (width + gap)
        canvas[top : top + height, left : left + width] = picture
    return canvas


def to_pillow(picture: np.ndarray) -> Image.Image:
    """One picture, uint8 (H, W, 1 or 3), as Pillow's: grey or RGB."""
    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)


def png_bytes(picture: np.ndarray | Image.Image, optimize: bool = False) -> bytes:
    """One picture, Pillow's or uint8 (H, W, 1 or 3), as a PNG; `optimize` is slower and smaller."""
    if isinstance(picture, np.ndarray):
        picture = to_pillow(picture)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=optimize)
    return buffer.getvalue()


def write_png(path: str | os.PathLike[str], picture: np.ndarray | Image.Image) -> None:
    """Writes `png_bytes` of a picture, atomically; UserError if the file cannot be written."""
    write_bytes_atomic(path, png_bytes(picture))


def part_of_name(text: str) -> str:
    """`text` as a part of a file's name: what is neither letter, digit, '.' nor '-' is '-'."""
    return re.sub(r"[^\w.-]+", "-", text)


def file_names(classes: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """A file name for each picture in the folder of its class, such as `3_cat/0007.png`.

    Folders begin with the number of the class, so that readers of image folders, which sort them by
    name, give the classes the same numbers.

    Args:
        classes: (n,) class numbers.
        class_names: one for each class.
    """
    digits = len(str(len(class_names) - 1))
    plain = [part_of_name(name).strip("-.")[:60] for name in class_names]
    folders = [f"{c:0{digits}d}_{name}" for c, name in enumerate(plain)]
    return [f"{folders[c]}/{number:04d}.png" for number, c in enumerate(classes)]


def write_folders(
    folder: str | os.PathLike[str],
    pictures: np.ndarray,
    classes: np.ndarray,
    class_names: Sequence[str],
) -> None:
    """Writes pictures, uint8 (n, H, W, channels), below `folder` under their `file_names`."""
    for picture, name in zip(pictures, file_names(classes, class_names), strict=True):
        write_png(Path(folder) / name, picture)


def draw_image_grid(
    initial: np.ndarray,
    learned: np.ndarray,
    initial_labels: np.ndarray,
    learned_labels: np.ndarray,
    class_names: Sequence[str],
    columns: int | None = None,
) -> Image.Image:
    """Draws rows of initial images, each above a row of the images learned from them.

    The caption of a picture is the class of its largest label and that label's value. If there are
    more than `MAX_IMAGES`, the first ones are shown.

    Args:
        initial, learned: (S, H, W, channels) in about [0, 1]; values beyond are clipped.
        initial_labels, learned_labels: (S, C).
        class_names: C names; long ones are shortened.
        columns: pictures in a row; None takes 10, or 20 for more than 100 pictures.
    """
    tile, gap, title_width, caption_height = 96, 8, 76, 30
    count = min(len(initial), MAX_IMAGES)
    columns = min(count, columns or (10 if count <= 100 else 20))
    scale = max(1, -(-tile // max(initial.shape[1:3])))
    height, width = initial.shape[1] * scale, initial.shape[2] * scale
    row_height = height + caption_height
    block_height = 2 * row_height + 2 * gap
    blocks = -(-count // columns)
    size = (title_width + columns * (width + gap) + gap, blocks * block_height + gap)
    canvas = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    font = text_font(class_names, _FONT_SIZE)
    rows = (("initial", initial, initial_labels), ("learned", learned, learned_labels))
    for r, (title, images, labels) in enumerate(rows):
        pixels = to_uint8(rgb(images[:count]))
        for i in range(count):
            block, column = divmod(i, columns)
            x = title_width + column * (width + gap)
            y = gap + block * block_height + r * row_height
            if column == 0:
                draw.text((title_width - 14, y + height / 2), title, _INK, font, anchor="rm")
                if r == 0 and block:
                    draw.line((gap, y - gap, size[0] - gap, y - gap), _LINE)
            enlarged = to_pillow(pixels[i]).resize((width, height), Image.Resampling.NEAREST)
            canvas.paste(enlarged, (x, y))
            best = int(np.argmax(labels[i]))
            caption = (draw, x + width / 2, y + height + 2)
            _write_caption(*caption, class_names[best], f"{labels[i][best]:.2f}", width, font)
    return canvas


def _write_caption(
    draw: ImageDraw.ImageDraw, x: float, y: float, name: str, value: str, width: int, font: _Font
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


def draw_label_bars(labels: np.ndarray, class_names: Sequence[str]) -> Image.Image:
    """Draws labels (S, C): one cell per image, one bar per class, below the line where negative.

    The largest label of an image is blue, and named under its cell. All cells have the same scale.
    If there are more than `MAX_IMAGES`, the first ones are drawn.
    """
    width, height, gap, caption_height = 110, 72, 10, 18
    labels = np.asarray(labels, np.float64)[:MAX_IMAGES]
    columns = min(len(labels), 10)
    rows = -(-len(labels) // columns)
    cell = width + gap, height + caption_height + gap
    canvas = Image.new("RGB", (columns * cell[0] + gap, rows * cell[1] + gap), _BACKGROUND)
    draw, font = ImageDraw.Draw(canvas), text_font(class_names, _FONT_SIZE)
    low, high = min(0.0, labels.min()), max(0.0, labels.max())
    unit = height / max(high - low, 1e-9)
    for number, row in enumerate(labels):
        left, top = gap + cell[0] * (number % columns), gap + cell[1] * (number // columns)
        zero, best = top + high * unit, int(np.argmax(row))
        for place, value in enumerate(row):
            ends = sorted((zero, zero - value * unit))
            x0, x1 = (left + width * (place + at) / len(row) for at in (0.1, 0.9))
            colour = _LARGEST_BAR if place == best else _BAR
            draw.rectangle((x0, ends[0], max(x0, x1 - 1), ends[1]), fill=colour)
        draw.line((left, zero, left + width, zero), _SOFT)
        caption = f"{class_names[best][:10]} {row[best]:.2f}"
        draw.text((left + width / 2, top + height + 2), caption, _INK, font, anchor="ma")
    return canvas
