"""Support images as one small PNG per evaluated step, so that a page holds many of them.

A page has a budget of bytes. It is kept by showing some images of a large support, by 256 colours
in the place of all, and last by fewer steps.
"""

import base64
from dataclasses import dataclass

import numpy as np
from PIL import Image

from kip_flax.data import sampling
from kip_flax.export import pictures

MAX_IMAGES = 200
MAX_FRAMES = 24
# Of pixels and labels as they are stored; base64 makes a third more of it.
BUDGET = 3_200_000
COLUMNS = 20


@dataclass(frozen=True, eq=False)
class Frame:
    """A support after `step` steps: its pictures in one PNG, its labels of the images shown."""

    step: int
    png: bytes
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class FrameChoice:
    """What is shown: rows of the support, steps, and whether in 256 colours."""

    rows: np.ndarray
    steps: tuple[int, ...]
    palette: bool


NOTHING = FrameChoice(np.arange(0), (), False)


def choose(steps: list[int], size: int, shape: tuple[int, int, int], classes: int) -> FrameChoice:
    """Chooses so that the page keeps to `BUDGET`; the first and the last step are always in it.

    Args:
        steps: evaluated steps, ascending.
        size: images of the support.
        shape: (H, W, C) of an image.
        classes: values of a label.
    """
    pixels = shape[0] * shape[1]
    room = BUDGET // 2 // (pixels + 2 * classes)  # Two steps at the least.
    rows = sampling.evenly(size, max(1, min(MAX_IMAGES, room)))
    colours = 1 if shape[2] == 1 else 3
    full, poor = (len(rows) * (pixels * each + 2 * classes) for each in (colours, 1))
    palette = colours > 1 and min(len(steps), MAX_FRAMES) * full > BUDGET
    count = min(MAX_FRAMES, BUDGET // (poor if palette else full))
    shown = sampling.evenly(len(steps), max(2, count))
    return FrameChoice(rows, tuple(steps[i] for i in shown), palette)


def encode(images: np.ndarray, palette: bool = False) -> bytes:
    """Images (n, H, W, C) in about [0, 1] as one small PNG, `columns(n)` in a row, without gaps.

    Args:
        images: beyond [0, 1] is clipped; other than one or three channels are shown in grey.
        palette: 256 colours in the place of all.
    """
    pixels = pictures.to_uint8(pictures.grey_or_rgb(images))
    sheet = pictures.to_pillow(pictures.sheet(pixels, COLUMNS))
    if palette and sheet.mode == "RGB":
        sheet = sheet.quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
    return pictures.png_bytes(sheet, optimize=True)


def columns(count: int) -> int:
    """Pictures in a row of a PNG that holds `count`."""
    return min(count, COLUMNS)


def place(at: int, count: int) -> tuple[int, int]:
    """Column and row of picture number `at` in a PNG that holds `count`."""
    row, column = divmod(at, columns(count))
    return column, row


def packed(labels: np.ndarray) -> dict[str, float | str]:
    """Labels as 16-bit integers in base64 times `scale`: 3 bytes a number, right to 1 in 30,000."""
    scale = float(np.abs(labels).max()) / 32767 or 1.0
    integers = np.rint(labels / scale).astype("<i2")
    return {"scale": scale, "values": base64.b64encode(integers.tobytes()).decode()}
