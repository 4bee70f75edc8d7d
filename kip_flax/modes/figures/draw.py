"""Figures for papers and slides: rows of images, a grid, an animation, curves, a set's worth.

matplotlib draws the figures, Pillow the animation.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from kip_flax.data import sampling
from kip_flax.export import pictures
from kip_flax.modes.transfer import ladder
from kip_flax.modes.transfer.ladder import Ladder
from kip_flax.networks import figures

_TIGHT: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.03}
FEWEST_FOR_CURVE = 3  # Fewer evaluations make no curve.
_MOST_CLASSES = 10  # Most columns of `rows_figure`.
_MOST_ANIMATED = 100  # Most images of `animation`.
_ZCA = (
    "ZCA whitening undone; the norm of each image, lost in it, is set to the training set's "
    "typical one."
)


@dataclass(frozen=True, eq=False)
class ShownSet:
    """A distilled set as figures show it.

    Attributes:
        name: its caption.
        pictures: (S, H, W, channels) in [0, 1].
        labels: (S, C).
        first_classes: (S,), the class that each image began with; a guess by its label if that is
            not `stated`.
        accuracy: accuracy on the images of the evaluations (0 to 1).
        norm_is_lost: whether the preprocessing lost the norm of each image.
        step: number of steps taken; 0 for the images at the start.
    """

    name: str
    pictures: np.ndarray
    labels: np.ndarray
    first_classes: np.ndarray
    accuracy: float
    norm_is_lost: bool
    step: int
    stated: bool = True


def rows_figure(rows: Sequence[ShownSet], class_names: Sequence[str]) -> Figure:
    """One row per set: its accuracy, and an image per class, of at most ten classes evenly."""
    columns = sampling.evenly(len(class_names), _MOST_CLASSES)
    note = _ZCA if any(row.norm_is_lost for row in rows) else ""
    figure = Figure(figsize=(1.9 + 0.62 * len(columns), 0.66 * len(rows) + 0.35 + 0.3 * bool(note)))
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    left = 1.9 / figure.get_figwidth()
    figure.subplots_adjust(left, 0.3 * bool(note) / figure.get_figheight(), 0.995, 0.88, 0.06, 0.06)
    for row, shown in zip(axes, rows, strict=True):
        known = shown.stated or len(rows[0].labels) != len(shown.labels)
        classes = shown.first_classes if known else rows[0].first_classes
        for axis, number in zip(row, columns, strict=True):
            axis.axis("off")
            found = np.flatnonzero(classes == number)
            if len(found):
                _show(axis, shown.pictures[found[0]])
        place = row[0].get_position()
        text = f"{shown.name}\n{100 * shown.accuracy:.2f} %"
        middle = (place.y0 + place.y1) / 2
        figure.text(
            left - 0.01, middle, text, ha="right", va="center", fontsize=8, parse_math=False
        )
    for axis, number in zip(axes[0], columns, strict=True):
        axis.set_title(class_names[number], fontsize=8, pad=3, parse_math=False)
    if note:
        figure.text(0.995, 0.01, note, ha="right", va="bottom", fontsize=6)
    return figure


def grid_figure(shown: ShownSet) -> Figure:
    """The images of a set, 10 or 20 in a row; of more than 200, 200 evenly chosen."""
    chosen = sampling.evenly(len(shown.pictures), pictures.MAX_IMAGES)
    across = min(len(chosen), 10 if len(chosen) <= 100 else 20)
    down = -(-len(chosen) // across)
    figure = Figure(figsize=(0.5 * across, 0.5 * down + 0.5))
    axis = figure.add_axes(
        (0.0, 0.2 / figure.get_figheight(), 1.0, 0.5 * down / (0.5 * down + 0.5))
    )
    axis.axis("off")
    _show(axis, _sheet(shown.pictures[chosen], across))
    of = "" if len(chosen) == len(shown.pictures) else f" of {len(shown.pictures)}"
    title = f"{shown.name}, {len(chosen)}{of} images: {100 * shown.accuracy:.2f} %"
    figure.text(0.5, 0.99, title, ha="center", va="top", fontsize=8)
    if shown.norm_is_lost:
        figure.text(0.5, 0.01, _ZCA, ha="center", va="bottom", fontsize=5, wrap=True)
    return figure


def animation(sets: Sequence[ShownSet]) -> bytes:
    """An animated GIF of the sets of a run: images, step and accuracy; at most 100 images."""
    chosen = sampling.evenly(len(sets[0].pictures), _MOST_ANIMATED)
    across = min(len(chosen), 10 if len(chosen) <= 50 else 20)
    height, width = sets[0].pictures.shape[1:3]
    scale = max(1, round(48 / max(height, width)))
    font = ImageFont.load_default(14)
    frames = []
    for shown in sets:
        sheet = pictures.to_uint8(_sheet(shown.pictures[chosen], across))
        sheet = sheet.repeat(scale, axis=0).repeat(scale, axis=1)
        frame = Image.new("RGB", (sheet.shape[1], sheet.shape[0] + 26), "white")
        frame.paste(pictures.to_pillow(sheet), (0, 26))
        text = f"step {shown.step}: {100 * shown.accuracy:.2f} %"
        ImageDraw.Draw(frame).text((6, 4), text, "#202124", font)
        frames.append(frame.quantize(256))
    buffer = io.BytesIO()
    pauses = [500] * (len(frames) - 1) + [2500]
    frames[0].save(
        buffer, "GIF", save_all=True, append_images=frames[1:], duration=pauses, loop=0, disposal=1
    )
    return buffer.getvalue()


def curve_figure(
    evaluations: Sequence[Mapping[str, Any]], split: str, chosen: int | None = None
) -> Figure:
    """Accuracy and error over the steps.

    Args:
        evaluations: rows of `step`, `accuracy` (0 to 1), `mse` and, if networks were trained on
            the sets, `networks` (see `networks.figures`).
        split: the images that were evaluated, 'test' or 'validation'.
        chosen: step of the chosen set, which is marked; None: no mark.
    """
    figure = Figure(figsize=(6.4, 2.4), layout="constrained")
    accuracy, error = figure.subplots(1, 2)
    accuracy.set_title(f"accuracy on {split} images, %", fontsize=8)
    error.set_title(f"mse on {split} images", fontsize=8)
    for axis, name, scale in ((accuracy, "accuracy", 100), (error, "mse", 1)):
        at = {row["step"]: scale * row[name] for row in evaluations}
        axis.plot(list(at), list(at.values()), ".-", lw=1, ms=4)
        if chosen is not None:
            axis.plot(chosen, at[chosen], "o", mfc="none", color="C1")
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.25)
    _draw_networks(accuracy, evaluations, split)
    return figure


def _draw_networks(axis: Any, evaluations: Sequence[Mapping[str, Any]], split: str) -> None:
    """Adds means and deviations of networks to the kernel's curve, with a legend."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for evaluation in evaluations:
        for row in figures.watched_rows(evaluation.get("networks", [])):
            if row["mean"] is not None:
                name = f"{row['network']}, {figures.words(row['on'])}"
                point = (evaluation["step"], 100 * row["mean"], 100 * (row["std"] or 0.0))
                found.setdefault(name, []).append(point)
    for number, (name, points) in enumerate(found.items()):
        steps, means, deviations = zip(*points, strict=True)
        style = {"color": f"C{2 + number}", "lw": 1, "ms": 4, "capsize": 2}
        axis.errorbar(steps, means, deviations, fmt=".-", label=name, **style)
    if found:
        axis.lines[0].set_label(f"kernel, {split} images")
        axis.set_title("accuracy, %", fontsize=8)
        axis.legend(fontsize=6)


def worth_figure(ladders: Mapping[str, Ladder]) -> Figure:
    """Accuracy over the number of random real images, one colour per network."""
    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    axis = figure.subplots()
    for number, (network, one) in enumerate(ladders.items()):
        colour = f"C{number}"
        sizes, means, stds = (np.array(column) for column in zip(*one.real, strict=True))
        label = f"{network}: {ladder.words(one)}"
        axis.errorbar(sizes, 100 * means, 100 * stds, color=colour, capsize=2, lw=1.2, label=label)
        end = ladder.crossing(one) or sizes[-1]
        level = [100 * one.accuracy] * 2
        axis.plot((one.size, end), level, color=colour, ls="--", lw=1)
        axis.plot(one.size, level[0], "o", color=colour)
    ticks = sorted({n for one in ladders.values() for n in (one.size, *(r.size for r in one.real))})
    axis.set_xscale("log")
    axis.set_xticks(ticks, [str(size) for size in ticks])
    axis.minorticks_off()
    axis.set(xlabel="images trained on", ylabel="accuracy, %")
    axis.grid(alpha=0.25)
    axis.legend(fontsize=6, loc="lower right")
    return figure


def rendered(figure: Figure, kind: str) -> bytes:
    """The figure as 'png' (200 dots per inch) or 'svg'; the same figure gives the same bytes."""
    metadata: dict[str, dict[str, str | None]] = {"png": {"Software": None}, "svg": {"Date": None}}
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "kip_flax"}):
        figure.savefig(buffer, format=kind, dpi=200, metadata=metadata[kind], **_TIGHT)
    return buffer.getvalue()


def _show(axis: Any, picture: np.ndarray) -> None:
    picture = pictures.grey_or_rgb(picture)
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="none")


def _sheet(shown: np.ndarray, across: int) -> np.ndarray:
    """Pictures (n, H, W, channels), `across` in a row, a white pixel apart, (.., .., 3) float64."""
    return pictures.sheet(pictures.rgb(shown), across, gap=1, fill=1).astype(np.float64)
