"""How many real images a distilled set is worth: where the ladder of random images crosses it."""

import io
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from kip_flax.files import write_bytes_atomic

_SIZE, _LEFT, _TOP, _RIGHT, _BOTTOM = (760, 460), 70, 20, 20, 50
_INK, _SOFT, _GRID = "#202124", "#70757a", "#e8eaed"
_COLOURS = ("#1a73e8", "#d93025", "#188038", "#9334e6", "#e37400", "#12858d", "#b80672", "#5f6368")


@dataclass(frozen=True)
class Ladder:
    """Test accuracies (0 to 1): of `real` (number of images, accuracy), and of a distilled set."""

    real: tuple[tuple[int, float], ...]
    size: int
    accuracy: float

    def is_whole(self) -> bool:
        """Whether every accuracy is there: those of trainings that diverged are NaN."""
        return all(math.isfinite(a) for a in (self.accuracy, *(a for _, a in self.real)))


def crossing(ladder: Ladder) -> float | None:
    """Number of real images as good as the distilled set; None where the ladder does not reach it.

    Linear in the logarithm of the number between the first two rungs that have the set's accuracy
    between them; None also if the first rung is better already.
    """
    for (n1, a1), (n2, a2) in zip(ladder.real, ladder.real[1:], strict=False):
        if a1 <= ladder.accuracy <= a2:
            share = (ladder.accuracy - a1) / (a2 - a1) if a2 > a1 else 0.0
            return math.exp(math.log(n1) + share * (math.log(n2) - math.log(n1)))
    return None


def words(ladder: Ladder) -> str:
    """The crossing in words."""
    found = crossing(ladder)
    if found is not None:
        times = found / ladder.size
        return f"{ladder.size} images are worth {found:.0f} real ones, {times:.1f} times their size"
    best = max(ladder.real, key=lambda rung: rung[1])
    if ladder.accuracy > best[1]:
        return f"{ladder.size} images are worth more than {best[0]} real ones"
    return f"{ladder.size} images are worth no more than {ladder.real[0][0]} real ones"


def write_picture(path: str | os.PathLike[str], ladders: Mapping[str, Ladder]) -> None:
    """Writes a PNG: accuracy over the number of real images (logarithmic), a colour per network.

    Each ladder is a line, the distilled set a dot with a dashed line to the crossing.

    Raises:
        UserError: the file cannot be written.
    """
    canvas = Image.new("RGB", _SIZE, "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(13)
    sizes = [n for lad in ladders.values() for n in (lad.size, *(n for n, _ in lad.real))]
    figures = [a for lad in ladders.values() for a in (lad.accuracy, *(a for _, a in lad.real))]
    low, high = math.floor(10 * min(figures)) / 10, math.ceil(10 * max(figures)) / 10
    first, last = math.log(min(sizes)), max(math.log(max(sizes)), math.log(min(sizes)) + 1e-9)

    def place(n: float, accuracy: float) -> tuple[float, float]:
        x = (math.log(n) - first) / (last - first)
        y = (accuracy - low) / max(high - low, 1e-9)
        width, height = _SIZE[0] - _LEFT - _RIGHT, _SIZE[1] - _TOP - _BOTTOM
        return _LEFT + x * width, _TOP + (1 - y) * height

    for tenth in range(round(10 * low), round(10 * high) + 1):
        x, y = place(min(sizes), tenth / 10)
        draw.line((x, y, _SIZE[0] - _RIGHT, y), _GRID)
        draw.text((x - 8, y), f"{10 * tenth} %", _SOFT, font, anchor="rm")
    for n in sorted(set(sizes)):
        draw.text((place(n, low)[0], _SIZE[1] - _BOTTOM + 8), str(n), _SOFT, font, anchor="mt")
    draw.text((_SIZE[0] / 2, _SIZE[1] - 8), "images trained on", _INK, font, anchor="mb")
    for i, (name, ladder) in enumerate(ladders.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        draw.line([place(*rung) for rung in ladder.real], colour, 2)
        x, y = place(ladder.size, ladder.accuracy)
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour)
        end = place(crossing(ladder) or max(sizes), ladder.accuracy)[0]
        for dash in range(int(x) + 8, int(end), 10):
            draw.line((dash, y, min(dash + 5, end), y), colour)
        if crossing(ladder) is not None:
            draw.ellipse((end - 4, y - 4, end + 4, y + 4), outline=colour, width=2)
        where = (_SIZE[0] - _RIGHT - 8, _SIZE[1] - _BOTTOM - 12 - 18 * (len(ladders) - 1 - i))
        draw.text(where, f"{name}: {words(ladder)}", colour, font, anchor="rm")
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    write_bytes_atomic(path, buffer.getvalue())
