"""Support images as one small PNG per evaluated step, so that a page holds many of them.

A page has a budget of bytes. It is kept by showing some images of a large support, by 256 colours
in the place of all, and last by fewer steps.
"""

import base64
import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

MAX_IMAGES = 200
MAX_FRAMES = 24
# Of pixels and labels as they are stored; base64 makes a third more of it.
BUDGET = 3_200_000
COLUMNS = 20


@dataclass(frozen=True)
class Frame:
    """A support after `step` steps: its pictures in one PNG, its labels of the images shown."""

    step: int
    png: bytes
    labels: np.ndarray


@dataclass(frozen=True)
class Plan:
    """What is shown: rows of the support, steps, and whether in 256 colours."""

    rows: np.ndarray
    steps: tuple[int, ...]
    palette: bool


def plan(steps: list[int], size: int, shape: tuple[int, int, int], classes: int) -> Plan:
    """Chooses so that the page keeps to `BUDGET`; the first and the last step are always in it.

    Args:
        steps: evaluated steps, ascending.
        size: images of the support.
        shape: (H, W, C) of an image.
        classes: values of a label.
    """
    pixels = shape[0] * shape[1]
    room = BUDGET // 2 // (pixels + 2 * classes)  # Two steps at the least.
    rows = spread(size, max(1, min(MAX_IMAGES, room)))
    colours = 1 if shape[2] == 1 else 3
    full, poor = (len(rows) * (pixels * each + 2 * classes) for each in (colours, 1))
    palette = colours > 1 and min(len(steps), MAX_FRAMES) * full > BUDGET
    count = min(MAX_FRAMES, BUDGET // (poor if palette else full))
    return Plan(rows, tuple(steps[i] for i in spread(len(steps), max(2, count))), palette)


def spread(total: int, most: int) -> np.ndarray:
    """At most `most` of the numbers below `total`, evenly, with the first and the last."""
    if total <= most:
        return np.arange(total)
    return np.unique(np.linspace(0, total - 1, most).round().astype(int))


def encode(pictures: np.ndarray, palette: bool = False) -> bytes:
    """Pictures (n, H, W, C) in about [0, 1] as one PNG, `columns(n)` in a row, without gaps.

    Beyond [0, 1] is clipped. Neither one nor three channels are shown by their mean, in grey.
    """
    pixels = np.rint(255 * np.clip(np.nan_to_num(pictures), 0, 1)).astype(np.uint8)
    if pixels.shape[-1] not in (1, 3):
        pixels = pixels.mean(axis=-1, keepdims=True).astype(np.uint8)
    count, height, width, channels = pixels.shape
    across = columns(count)
    down = math.ceil(count / across)
    sheet = np.zeros((down * across, height, width, channels), np.uint8)
    sheet[:count] = pixels
    sheet = sheet.reshape(down, across, height, width, channels).swapaxes(1, 2)
    sheet = sheet.reshape(down * height, across * width, channels)
    image = Image.fromarray(sheet[..., 0] if channels == 1 else sheet)
    if palette and channels == 3:
        image = image.quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def columns(count: int) -> int:
    """Pictures in a row of a PNG that holds `count`."""
    return min(count, COLUMNS)


def data_url(png: bytes) -> str:
    """A PNG as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def packed(labels: np.ndarray) -> dict[str, float | str]:
    """Labels as 16-bit integers in base64 times `scale`: 3 bytes a number, right to 1 in 30,000."""
    scale = float(np.abs(labels).max()) / 32767 or 1.0
    integers = np.rint(labels / scale).astype("<i2")
    return {"scale": scale, "values": base64.b64encode(integers.tobytes()).decode()}
