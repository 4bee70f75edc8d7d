"""Support images as one small PNG per evaluated step, so that a page can hold many.

A page has a budget of bytes. To keep to it, a page shows only some images of a large support, then
256 colours instead of all, and last fewer steps.
"""

import base64
from dataclasses import dataclass

import numpy as np
from PIL import Image

from kip_flax.data import sampling
from kip_flax.export import pictures

MAX_IMAGES = 200
MAX_FRAMES = 24
# Bytes of a run's pixels and labels, uncompressed; base64 adds a third.
BUDGET = 3_200_000
COLUMNS = 20


@dataclass(frozen=True, eq=False)
class Frame:
    """A support after `step` steps.

    Attributes:
        step: number of steps.
        png: the n images shown.
        labels: theirs, (n, C).
        first_classes: the classes (n,) that they began with.
        stated: whether the set's file states them; else they are those of its largest labels.
    """

    step: int
    png: bytes
    labels: np.ndarray
    first_classes: np.ndarray
    stated: bool


@dataclass(frozen=True, eq=False)
class FrameChoice:
    """The rows of the support and the steps that are shown, and whether in 256 colours."""

    rows: np.ndarray
    steps: tuple[int, ...]
    palette: bool


_BAR_BYTES = 24  # Of one class's bar in the drawing of a card.
NOTHING = FrameChoice(np.arange(0), (), False)


def choose(steps: list[int], size: int, shape: tuple[int, int, int], classes: int) -> FrameChoice:
    """Chooses images and steps within `BUDGET`, always with the first and the last step.

    Args:
        steps: evaluated steps, ascending.
        size: images of the support.
        shape: (H, W, C) of an image.
        classes: number of values of a label.
    """
    pixels = shape[0] * shape[1]
    # At least two steps have to fit, and the bars of all cards.
    room = min(BUDGET // 2 // (pixels + 2 * classes), BUDGET // (_BAR_BYTES * classes))
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
        images: clipped to [0, 1]; shown in grey unless they have three channels.
        palette: whether to use 256 colours instead of all.
    """
    pixels = pictures.to_uint8(pictures.grey_or_rgb(images))
    sheet = pictures.to_pillow(pictures.sheet(pixels, COLUMNS))
    if palette and sheet.mode == "RGB":
        sheet = sheet.quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
    return pictures.png_bytes(sheet, optimize=True)


def columns(count: int) -> int:
    """Images in a row of a PNG that holds `count`."""
    return min(count, COLUMNS)


def place(at: int, count: int) -> tuple[int, int]:
    """Column and row of image number `at` (from 0) in a PNG that holds `count`."""
    row, column = divmod(at, columns(count))
    return column, row


def packed(labels: np.ndarray) -> dict[str, float | str]:
    """Labels as base64 of 16-bit integers, to multiply by `scale`: exact to 1 in 30,000."""
    scale = float(np.abs(labels).max()) / 32767 or 1.0
    integers = np.rint(labels / scale).astype("<i2")
    return {"scale": scale, "values": base64.b64encode(integers.tobytes()).decode()}
