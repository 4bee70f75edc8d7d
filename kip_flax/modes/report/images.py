"""What was learned: a card for each support image with its label, the slider over the steps."""

import json
from html import escape

import numpy as np

from kip_flax.modes.report import sprites as report_sprites
from kip_flax.modes.report import style as report_style
from kip_flax.modes.report.facts import Facts
from kip_flax.modes.report.text import fold, number, percent, signed, table

_BAR_HEIGHT = 60  # As in report.js.
_TABLE_CELLS = 2000


def section(run: Facts, uid: str) -> str:
    """The slider over the evaluated steps and, for each image, where it began and what it is."""
    if not run.frames:
        return "<p>The folder holds no distilled sets to show.</p>"
    moved = _moved(run)
    return "\n".join(
        [
            f'<p class="soft small wide">{_explained(run, moved)}</p>',
            f'<p class="soft small wide">{run.note}</p>' if run.note else "",
            _control(run, uid),
            _cards(run, moved),
            _label_table(run, uid),
            f'<script type="application/json">{_data(run)}</script>',
        ]
    )


def one_picture(run: Facts) -> bool:
    """Whether a card has one picture: the images did not change."""
    return bool(run.frames) and not _moved(run)


def labels_changed(run: Facts) -> bool:
    """Whether the labels are no longer those that the images came with; the plan before a step."""
    if len(run.frames) < 2:
        return bool(run.config["support.learn_labels"])
    return not np.array_equal(run.frames[0].labels, run.frames[-1].labels)


def frame_text(run: Facts, step: int) -> str:
    """What the slider says of a step."""
    row = next(row for row in run.evaluations if row["step"] == step)
    accuracy = f"{run.split} accuracy {percent(row['accuracy'])}"
    told = f"step {number(step)}: {accuracy}, mse {row['mse']:.4f}"
    return told.replace("\u00a0", " ")


def _explained(run: Facts, moved: bool) -> str:
    told = [
        f"Left the {_start(run)} that each began as, right what it became."
        if moved
        else "The images stay as they are; their labels change.",
        "Bars are the values of the label, one for each class in their order; those below the line "
        "are negative. "
        "Blue is the class that the image began as.",
    ]
    if len(run.rows) < run.size:
        told.append(f"{len(run.rows)} of {number(run.size)} images are shown, evenly spread.")
    if len(run.frames) < len(run.files):
        told.append(f"{len(run.frames)} of {len(run.files)} evaluated steps are shown.")
    if run.palette:
        told.append("Each step is shown in 256 colours; the files hold the images as they are.")
    return " ".join(told)


def _start(run: Facts) -> str:
    """What an image began as."""
    init = run.config["support.init"]
    return {"real": "real image", "noise": "noise"}.get(init, "image of another set")


def _moved(run: Facts) -> bool:
    return run.frames[0].png != run.frames[-1].png


def _range(run: Facts) -> tuple[float, float]:
    """Smallest and largest label of all steps: all bars have one scale."""
    labels = np.stack([frame.labels for frame in run.frames])
    return min(0.0, float(labels.min())), max(1e-6, float(labels.max()))


def _control(run: Facts, uid: str) -> str:
    text, last = frame_text(run, run.frames[-1].step), len(run.frames) - 1
    return f"""<div class="control"><div class="line">
<button type="button" data-back aria-label="One step back">&lsaquo;</button>
<input type="range" id="{uid}-step" min="0" max="{last}" step="1" value="{last}" \
autocomplete="off" aria-label="Evaluated step" aria-valuetext="{escape(text)}">
<button type="button" data-on aria-label="One step on">&rsaquo;</button>
<button type="button" data-play>Play</button></div>
<output for="{uid}-step">{escape(text)}</output></div>"""


def _cards(run: Facts, moved: bool) -> str:
    own, low_high, count = run.began_as, _range(run), len(run.rows)
    cards = []
    for at, row in enumerate(run.rows.tolist()):
        name, label = run.class_names[own[at]], run.frames[-1].labels[at]
        before = f"Image {row + 1} at the start ({_start(run)}), class {name}"
        after = f"Learned image {row + 1}, class {name}" if moved else f"Image {row + 1}, {name}"
        tiles = report_style.tile("before", at, count, before) if moved else ""
        tiles += report_style.tile("now", at, count, after)
        cards.append(
            f'<li><div class="pair">{tiles}</div>'
            f'<p class="caption"><b>{escape(name)}</b><span class="value">'
            f"{signed(label[own[at]])}</span></p>"
            f"{_bars(run, row, label, int(own[at]), low_high)}</li>"
        )
    return f'<ul class="cards">{"".join(cards)}</ul>'


def _bars(run: Facts, row: int, label: np.ndarray, own: int, low_high: tuple[float, float]) -> str:
    low, high = low_high
    unit = _BAR_HEIGHT / (high - low)

    def bar(k: int) -> str:
        return f"M{10 * k + 1} {high * unit:.1f}h8V{(high - label[k]) * unit:.1f}h-8z"

    others = "".join(bar(k) for k in range(len(label)) if k != own)
    order = np.argsort(-np.abs(label), kind="stable")[:3]
    words = ", ".join(f"{run.class_names[k]} {signed(label[k])}" for k in order)
    ticks = ""
    if len(label) <= 12 and max(map(len, run.class_names)) <= 2:
        spans = "".join(f"<span>{escape(name)}</span>" for name in run.class_names)
        ticks = f'<div class="ticks" aria-hidden="true">{spans}</div>'
    width = 10 * len(label)
    zero = f"{high * unit:.1f}"
    return (
        f'<svg class="bars" viewBox="0 0 {width} {_BAR_HEIGHT}" preserveAspectRatio="none" '
        f'role="img" aria-label="{escape(f"Label of image {row + 1}: {words}")}">'
        f'<path class="other" d="{others}"/><path class="own" d="{bar(own)}"/>'
        f'<line x1="0" x2="{width}" y1="{zero}" y2="{zero}"/></svg>{ticks}'
    )


def _label_table(run: Facts, uid: str) -> str:
    """The labels of the last step as numbers, where that is no wall of them."""
    labels = run.frames[-1].labels
    if labels.size > _TABLE_CELLS:
        return ""
    own = run.began_as
    rows = [
        [f"{row + 1} ({run.class_names[own[at]]})", *(signed(v, 3) for v in label)]
        for at, (row, label) in enumerate(zip(run.rows.tolist(), labels, strict=True))
    ]
    caption = f"Labels after step {run.frames[-1].step}, one column for each class"
    numbers = table(["image", *run.class_names], rows, caption)
    return fold(f"{uid}-labels", "Labels as numbers", numbers)


def _data(run: Facts) -> str:
    frames = [
        {
            "step": frame.step,
            "text": frame_text(run, frame.step),
            **report_sprites.packed(frame.labels),
        }
        for frame in run.frames
    ]
    told = {
        "names": run.class_names,
        "own": run.began_as.tolist(),
        "range": _range(run),
        "frames": frames,
    }
    return json.dumps(told, separators=(",", ":")).replace("<", "\\u003c")
