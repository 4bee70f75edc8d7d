"""What a report tells of a run's results: curves, mistakes, spectrum."""

import math
from collections.abc import Callable
from html import escape

import numpy as np

from kip_flax.algorithms import _methods as methods
from kip_flax.modes.report import sprites as report_sprites
from kip_flax.modes.report.charts import Level, Line, class_bars, line_chart
from kip_flax.modes.report.facts import Facts
from kip_flax.modes.report.text import figure, fold, number, percent, table
from kip_flax.runs import analysis

# With more classes a table of all pairs is no longer readable.
_MANY_CLASSES = 20


def solved(run: Facts) -> tuple[float, float] | None:
    """Test accuracy and mse of Label Solve on the initial images, or None if not known."""
    if run.config["algorithm"] == "ls" or run.analysis is None:
        return None
    accuracy, mse = (float(value) for value in run.analysis["solved"])
    return (accuracy, mse) if math.isfinite(accuracy) else None


def curves(run: Facts, uid: str) -> str:
    """Accuracy and loss over the steps, and the same as a table."""
    charts = f"{_accuracy(run, uid)}{_loss(run, uid)}{_own_loss(run, uid)}"
    rows = [
        [number(row["step"]), percent(row["accuracy"]), f"{row['mse']:.5f}"]
        for row in run.evaluations
    ]
    heads = ["step", f"{run.split} accuracy", f"{run.split} mse"]
    numbers = table(heads, rows, "Figures of the evaluated steps")
    return f'<div class="charts">{charts}</div>' + fold(
        f"{uid}-figures", "The same as a table", numbers
    )


def mistakes(run: Facts, uid: str) -> str:
    """Confusion matrix and accuracy per class; empty without an analysis."""
    found = run.analysis
    if found is None:
        return ""
    counts = found["confusion"]
    tested = f"{number(found['num_test'])} of {number(found['of_test'])} {run.split} images"
    if found["num_test"] == found["of_test"]:
        tested = f"all {number(found['num_test'])} {run.split} images"
    matrix = (
        _matrix(run, counts) if len(counts) <= _MANY_CLASSES else _map(run, counts, f"{uid}-pairs")
    )
    return (
        f'<p class="soft">Predictions from the last set for {tested}.</p>'
        f'<div class="charts"><figure><h3>Which class is taken for which</h3>{matrix}</figure>'
        f"<figure><h3>Right answers per class, %</h3>{_per_class(run, uid)}</figure></div>"
    )


def spectrum(run: Facts, uid: str) -> str:
    """Eigenvalues of K_ss at the start and now, and what they say; empty without an analysis."""
    found = run.analysis
    if found is None:
        return ""
    now, start = found["eigenvalues"], found["initial_eigenvalues"]
    reg = float(run.config["reg"])
    lines = [Line("last set", "k-test", _ranked(now), dots=len(now) <= 60)]
    if not np.array_equal(now, start):
        lines.insert(0, Line("images at the start", "k-start", _ranked(start)))
    told = (
        f"Condition number {figure(analysis.condition(now))}, with the ridge "
        f"{figure(analysis.condition(now, reg))}"
    )
    before = f"at the start {figure(analysis.condition(start))}" if len(lines) > 1 else ""
    chart = line_chart(
        f"{uid}-spectrum",
        "Eigenvalues of the kernel of the support",
        f"{len(now)} eigenvalues, from {now.max():.4g} down to {now.min():.4g}.",
        lines,
        x_label="rank of the eigenvalue",
        steps=False,
        log_y=True,
    )
    return (
        f'<p class="soft">Eigenvalues of K<sub>ss</sub>, the kernel of the support with itself. '
        f"{told}{'; ' + before if before else ''}. The solve adds a ridge of {figure(reg)} times "
        f"the mean eigenvalue; labels are fitted least along the smallest.</p>"
        f'<div class="charts"><figure>{chart}</figure></div>'
    )


def _accuracy(run: Facts, uid: str) -> str:
    tested = [(row["step"], row["accuracy"]) for row in run.evaluations]
    trained = [(row["step"], row["accuracy"]) for row in run.history if "accuracy" in row]
    lines = [Line("test", "k-test", tested, dots=True)]
    if trained:
        lines.insert(0, Line("training batches", "k-train", trained))
    levels = [Level("images at the start", "k-start", tested[0][1])]
    if (level := solved(run)) is not None:
        levels.append(Level("Label Solve on those", "k-solved", level[0]))
    chart = line_chart(
        f"{uid}-accuracy",
        "Accuracy over the steps",
        _trend(
            f"{run.split.capitalize()} accuracy",
            [(s, f"{100 * a:.2f} %") for s, a in tested],
            levels,
            percent,
        ),
        lines,
        levels,
        x_label=_x_label(run),
        percent=True,
        cursor=tested[-1][0],
    )
    return f"<figure><h3>Accuracy</h3>{chart}</figure>"


def _loss(run: Facts, uid: str) -> str:
    tested = [(row["step"], row["mse"]) for row in run.evaluations]
    trained = [(row["step"], row["loss"]) for row in run.history if "loss" in row]
    lines = [Line(f"{run.split} mse", "k-test", tested, dots=True)]
    if trained and methods.is_kip(run.config["algorithm"]):
        lines.insert(0, Line("training loss", "k-train", trained))
    levels = [Level("images at the start", "k-start", tested[0][1])]
    if (level := solved(run)) is not None:
        levels.append(Level("Label Solve on those", "k-solved", level[1]))
    chart = line_chart(
        f"{uid}-loss",
        "Loss over the steps",
        _trend(
            f"{run.split.capitalize()} mse",
            [(s, f"{m:.5f}") for s, m in tested],
            levels,
            "{:.5f}".format,
        ),
        lines,
        levels,
        x_label=_x_label(run),
        log_y=True,
        cursor=tested[-1][0],
    )
    return f"<figure><h3>Loss: half the mean squared error</h3>{chart}</figure>"


def _own_loss(run: Facts, uid: str) -> str:
    """The loss of another algorithm: no mean squared error of kernel ridge regression."""
    told = [(row["step"], row["loss"]) for row in run.history if "loss" in row]
    if not told or methods.is_kip(run.config["algorithm"]):
        return ""
    chart = line_chart(
        f"{uid}-own",
        "Loss of the algorithm over the steps",
        f"From {told[0][1]:.4g} at step {told[0][0]:g} to {told[-1][1]:.4g} at {told[-1][0]:g}.",
        [Line("training loss", "k-train", told)],
        x_label=_x_label(run),
        log_y=True,
        cursor=told[-1][0],
    )
    return f"<figure><h3>The algorithm's own loss</h3>{chart}</figure>"


def _x_label(run: Facts) -> str:
    unit = "tiles of targets" if run.config["algorithm"] == "ls" else "steps"
    return f"{unit} (logarithmic in 1 + step)"


def _trend(
    name: str, told: list[tuple[float, str]], levels: list[Level], text: Callable[[float], str]
) -> str:
    first, last = told[0], told[-1]
    others = "".join(f"; {level.name}: {text(level.value)}" for level in levels)
    return f"{name} {first[1]} at step {first[0]:g}, {last[1]} at step {last[0]:g}{others}."


def _ranked(eigenvalues: np.ndarray) -> list[tuple[float, float]]:
    return [(rank, float(value)) for rank, value in enumerate(eigenvalues, start=1)]


def _matrix(run: Facts, counts: np.ndarray) -> str:
    """All pairs: rows are true classes, columns predictions; shades are shares of the row."""
    names, shares = run.class_names, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    long = max(map(len, names)) > 2
    head = "".join(
        f'<th scope="col"><div{" class=down" if long else ""}>{escape(name)}</div></th>'
        for name in names
    )
    rows = []
    for true, name in enumerate(names):
        cells = []
        for said in range(len(names)):
            kind = "right" if true == said else "none" if counts[true, said] == 0 else "wrong"
            shade = shares[true, said] if kind == "right" else min(1, 3 * shares[true, said])
            cells.append(f'<td class="{kind}" style="--v:{shade:.3f}">{counts[true, said]}</td>')
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix">'
        '<table class="confusion"><caption>Rows: the true class; columns: the prediction'
        f"</caption><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        "</div>"
    )


def _map(run: Facts, counts: np.ndarray, uid: str) -> str:
    """A picture of all pairs, and the most frequent mistakes in words."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    png = report_sprites.encode(1 - np.sqrt(shares)[None, ..., None])
    size = len(counts)
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:10]
    pairs = [divmod(int(flat), size) for flat in order if wrong.flat[flat]]
    rows = [[run.class_names[t], run.class_names[p], str(wrong[t, p])] for t, p in pairs]
    told = table(["class", "taken for", "times"], rows, "The most frequent mistakes", 2)
    return (
        f'<img class="map" src="{report_sprites.data_url(png)}" width="{size}" height="{size}" '
        f'alt="Confusion matrix of {size} classes: rows are true classes, columns predictions; the '
        f'darker, the more frequent. The most frequent mistakes follow as a table.">'
        + fold(uid, "The most frequent mistakes", told)
    )


def _per_class(run: Facts, uid: str) -> str:
    assert run.analysis is not None
    kinds = ("confusion", "initial_confusion", "solved_confusion")
    counts = [run.analysis[kind] for kind in kinds]
    shares = [np.diag(kind) / np.maximum(kind.sum(axis=1), 1) for kind in counts]
    if solved(run) is None:
        shares[2] = np.full(len(shares[0]), np.nan)
    order = np.arange(len(shares[0]))
    title = "Right answers per class"
    if len(order) > _MANY_CLASSES:
        ranked = np.argsort(-shares[0], kind="stable")
        order = np.concatenate([ranked[:10], ranked[-10:]])
        title += ", the ten best and the ten worst"
    now, start, best = shares
    rows = [(run.class_names[n], float(now[n]), float(start[n]), float(best[n])) for n in order]
    third = "Label Solve on those" if solved(run) is not None else ""
    return class_bars(f"{uid}-classes", title, rows, ("last set", "images at the start", third))
