"""The pictures of a report: cards of support images with their labels, and their neighbours."""

import json
import math
from html import escape

import numpy as np

from kip_flax import report_sprites
from kip_flax.report_facts import Facts
from kip_flax.report_text import fold, number, percent, signed, table

_BAR_HEIGHT = 60  # As in report.js.
_WIDE, _NARROW, _SMALL = 88, 68, 64  # Pixels of a picture's longer side, at most.
_TABLE_CELLS = 2000
_NEAR_SHOWN = 20


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
    if run.analysis is not None:
        pixels = run.analysis["nearest_pixels"] / 255
        pixels = pixels.reshape(-1, *pixels.shape[2:])
        url = report_sprites.data_url(report_sprites.encode(pixels, pixels.size > 1_000_000))
        across = report_sprites.columns(len(pixels))
        rules.append(f"#{uid} .real{{--across:{across};background-image:url({url})}}")
    return "\n".join(rules)


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


def nearest(run: Facts, uid: str) -> str:
    """For each learned image the real ones nearest to it; empty without an analysis."""
    found = run.analysis
    if found is None or not run.frames:
        return ""
    place = {int(row): at for at, row in enumerate(run.rows)}
    items = []
    for at, row in enumerate(found["nearest_rows"].tolist()):
        if row not in place:
            continue
        name = run.class_names[_own(run)[place[row]]]
        tiles = [
            f"<div>{_tile('last', place[row], len(run.rows), f'Learned image {row + 1}, {name}')}"
            f"<p>{escape(name)}</p></div>"
        ]
        count = len(found["nearest_labels"][at])
        for n in range(count):
            real = run.class_names[found["nearest_labels"][at][n]]
            cosine = found["nearest_similarity"][at][n]
            alt = f"Real image of class {real}, cosine {cosine:.3f}"
            total = count * len(found["nearest_rows"])
            tile = _tile("real", at * count + n, total, alt)
            items_text = f"<p>{escape(real)}<br>{cosine:.3f}</p>"
            tiles.append(f"<div>{tile}{items_text}</div>")
        items.append(f'<li><div class="row">{"".join(tiles)}</div></li>')
    rest = ""
    if len(items) > _NEAR_SHOWN:
        others = items[_NEAR_SHOWN:]
        rest = fold(f"{uid}-near", f"The other {len(others)}", _list(others))
    return (
        f'<p class="soft">Each image of the set, then the three most alike of '
        f"{number(found['num_train'])} training images (of {number(found['of_train'])}, evenly "
        f"over the classes), with their class and the cosine k(x,&nbsp;y) / "
        f"√(k(x,&nbsp;x)&nbsp;k(y,&nbsp;y)).</p>{_list(items[:_NEAR_SHOWN])}{rest}"
    )


def _list(items: list[str]) -> str:
    return f'<ul class="near">{"".join(items)}</ul>'


def frame_text(run: Facts, step: int) -> str:
    """What the slider says of a step."""
    row = next(row for row in run.evaluations if row["step"] == step)
    told = f"step {number(step)}: test accuracy {percent(row['accuracy'])}, mse {row['mse']:.4f}"
    return told.replace("\u00a0", " ")


def _explained(run: Facts, moved: bool) -> str:
    start = "real image" if run.config["support.init"] == "real" else "noise"
    told = [
        f"Left the {start} that each began as, right what it became."
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


def _moved(run: Facts) -> bool:
    return run.frames[0].png != run.frames[-1].png


def _own(run: Facts) -> np.ndarray:
    """The class that each image began as."""
    return run.frames[0].labels.argmax(axis=1)


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
    own, low_high, count = _own(run), _range(run), len(run.rows)
    kind = "Real" if run.config["support.init"] == "real" else "Noise"
    cards = []
    for at, row in enumerate(run.rows.tolist()):
        name, label = run.class_names[own[at]], run.frames[-1].labels[at]
        before = f"{kind} image {row + 1} at the start, class {name}"
        after = f"Learned image {row + 1}, class {name}" if moved else f"Image {row + 1}, {name}"
        tiles = _tile("before", at, count, before) if moved else ""
        tiles += _tile("now", at, count, after)
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
    own = _own(run)
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
        "own": _own(run).tolist(),
        "range": _range(run),
        "frames": frames,
    }
    return json.dumps(told, separators=(",", ":")).replace("<", "\\u003c")


def _tile(kind: str, at: int, count: int, alt: str) -> str:
    row, column = divmod(at, report_sprites.columns(count))
    return (
        f'<div class="tile {kind}" role="img" aria-label="{escape(alt)}" '
        f'style="--c:{column};--r:{row}"></div>'
    )


def _scale(side: int, most: int) -> float:
    """Screen pixels of an image's pixel: whole where it fits, so that all are of one size."""
    return math.floor(most / side) if most >= side else most / side
