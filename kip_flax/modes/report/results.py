"""The results in a run's report: curves, mistakes, spectrum."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from kip_flax.modes import pages
from kip_flax.modes.report import charts, sprites
from kip_flax.modes.report.charts import Chart, ClassBars, ClassShares, Curve, Drawing, Threshold
from kip_flax.modes.report.facts import RunFacts
from kip_flax.networks import figures as network_figures
from kip_flax.runs import analysis

# With more classes than this, a table of all pairs is not readable.
_MANY_CLASSES = 20
_NETWORK_CLASSES = ("k-network", "k-network-2", "k-network-3")


# --- curves ---


@dataclass(frozen=True, eq=False)
class Curves:
    """Accuracy and loss over the steps.

    Attributes:
        drawings: charts by heading; None if there is nothing to draw.
        columns: columns of the table of evaluated steps: step, accuracy, mse, networks.
        rows: its rows.
    """

    drawings: dict[str, Drawing | None]
    columns: list[str]
    rows: list[list[str]]


def curves(run: RunFacts, uid: str) -> Curves:
    """Accuracy and loss over the steps, and the algorithm's own loss if it is a different one."""
    drawings = {
        "Accuracy": charts.draw(_accuracy(run, uid)),
        "Loss: half the mean squared error": charts.draw(_loss(run, uid)),
    }
    if not run.algorithm.krr_loss and (logged := _logged(run, "loss")):
        drawings["The algorithm's own loss"] = charts.draw(_own_loss(uid, logged, _x_label(run)))
    watched = run.watched
    columns = ["step", f"{run.split} accuracy", f"{run.split} mse", *map(_called, watched.items())]
    rows = [
        [
            pages.number(row["step"]),
            pages.percent(row["accuracy"]),
            f"{row['mse']:.5f}",
            *(
                network_figures.spread(found[row["step"]]) if row["step"] in found else pages.NONE
                for found in watched.values()
            ),
        ]
        for row in run.evaluations
    ]
    return Curves(drawings, columns, rows)


def _accuracy(run: RunFacts, uid: str) -> Chart:
    tested = [(row["step"], row["accuracy"]) for row in run.evaluations]
    trained = _logged(run, "accuracy")
    of_networks = _of_networks(run)
    kernel = f"kernel, {run.split} images" if of_networks else run.split
    shown = [Curve(kernel, "k-test", tested, dots=True), *of_networks]
    if trained:
        shown.insert(0, Curve("training batches", "k-train", trained))
    solved = run.label_solve
    thresholds = _thresholds(tested[0][1], solved.accuracy if solved else None)
    name = f"{run.split.capitalize()} accuracy"
    ends = [f"{100 * share:.2f} %" for _, share in (tested[0], tested[-1])]
    return Chart(
        f"{uid}-accuracy",
        "Accuracy over the steps",
        _trend(name, tested, ends, thresholds, pages.percent) + _trends(of_networks),
        _x_label(run),
        shown,
        thresholds,
        y_scale="percent",
        cursor=tested[-1][0],
    )


def _of_networks(run: RunFacts) -> list[Curve]:
    """A curve for each network trained on the sets, without points where it diverged."""
    curves = []
    for number, (name, found) in enumerate(run.watched.items()):
        fine = {step: row for step, row in found.items() if row["mean"] is not None}
        if fine:
            curves.append(
                Curve(
                    _called((name, found)),
                    _NETWORK_CLASSES[number % len(_NETWORK_CLASSES)],
                    [(step, row["mean"]) for step, row in fine.items()],
                    dots=True,
                    notes={
                        step: f" ± {100 * row['std']:.2f}"
                        for step, row in fine.items()
                        if row["std"] is not None
                    },
                )
            )
    return curves


def _called(item: tuple[str, dict[float, network_figures.Row]]) -> str:
    """'convnet_plain:3, held-out images'."""
    name, found = item
    return f"{name}, {network_figures.words(list(found.values())[-1]['on'])}"


def _trends(curves: list[Curve]) -> str:
    return "".join(
        f" {curve.name}: {pages.percent(curve.points[0][1])} at step {curve.points[0][0]:g}, "
        f"{pages.percent(curve.points[-1][1])} at step {curve.points[-1][0]:g}."
        for curve in curves
    )


def _loss(run: RunFacts, uid: str) -> Chart:
    tested = [(row["step"], row["mse"]) for row in run.evaluations]
    trained = _logged(run, "loss") if run.algorithm.krr_loss else []
    shown = [Curve(f"{run.split} mse", "k-test", tested, dots=True)]
    if trained:
        shown.insert(0, Curve("training loss", "k-train", trained))
    solved = run.label_solve
    thresholds = _thresholds(tested[0][1], solved.mse if solved else None)
    name, text = f"{run.split.capitalize()} mse", "{:.5f}".format
    ends = [text(mse) for _, mse in (tested[0], tested[-1])]
    return Chart(
        f"{uid}-loss",
        "Loss over the steps",
        _trend(name, tested, ends, thresholds, text),
        _x_label(run),
        shown,
        thresholds,
        y_scale="log",
        cursor=tested[-1][0],
    )


def _own_loss(uid: str, logged: list[tuple[float, float]], x_label: str) -> Chart:
    (first, start), (last, end) = logged[0], logged[-1]
    return Chart(
        f"{uid}-own",
        "Loss of the algorithm over the steps",
        f"From {start:.4g} at step {first:g} to {end:.4g} at {last:g}.",
        x_label,
        [Curve("training loss", "k-train", logged)],
        y_scale="log",
        cursor=last,
    )


def _logged(run: RunFacts, name: str) -> list[tuple[float, float]]:
    return [(row["step"], row[name]) for row in run.history if name in row]


def _thresholds(start: float, label_solve: float | None) -> list[Threshold]:
    found = [Threshold("images at the start", "k-start", start)]
    if label_solve is not None:
        found.append(Threshold("Label Solve on those", "k-solved", label_solve))
    return found


def _trend(
    name: str,
    points: list[tuple[float, float]],
    ends: list[str],
    thresholds: list[Threshold],
    text: Callable[[float], str],
) -> str:
    others = "".join(f"; {t.name}: {text(t.value)}" for t in thresholds)
    (first, _), (last, _) = points[0], points[-1]
    return f"{name} {ends[0]} at step {first:g}, {ends[1]} at step {last:g}{others}."


def _x_label(run: RunFacts) -> str:
    return f"{pages.nouns(run.algorithm.unit)} (logarithmic in 1 + step)"


# --- mistakes ---


class Cell(NamedTuple):
    """A pair of classes: 'right', 'wrong' or 'none', shade (0 to 1), and number of images."""

    kind: str
    shade: float
    times: int


@dataclass(frozen=True, eq=False)
class Mistakes:
    """Predictions from the last set.

    Attributes:
        matrix: rows are true classes, columns predictions; empty for many classes.
        picture: the same as a PNG for many classes; otherwise empty.
        frequent: true class, prediction and count of the ten most frequent mistakes.
        per_class: share of right answers of each class that has test images; of many classes, the
            ten best and worst.
    """

    matrix: tuple[tuple[Cell, ...], ...]
    picture: bytes
    frequent: tuple[tuple[str, str, int], ...]
    per_class: ClassBars


def mistakes(run: RunFacts, uid: str) -> Mistakes:
    """Predictions from the last set against the true classes; the run must be analysed."""
    assert run.analysis is not None
    counts = run.analysis["confusion"]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    many = len(counts) > _MANY_CLASSES
    return Mistakes(
        () if many else _matrix(counts, shares),
        sprites.encode(1 - np.sqrt(shares)[None, ..., None]) if many else b"",
        _frequent(run.class_names, counts),
        _per_class(run, run.analysis, uid),
    )


def _matrix(counts: np.ndarray, shares: np.ndarray) -> tuple[tuple[Cell, ...], ...]:
    """Cells shaded by their share of the row; mistakes, which are fewer, three times as dark."""

    def cell(true: int, predicted: int) -> Cell:
        count, share = int(counts[true, predicted]), float(shares[true, predicted])
        if true == predicted:
            return Cell("right", share, count)
        return Cell("wrong" if count else "none", min(1, 3 * share), count)

    classes = range(len(counts))
    return tuple(tuple(cell(true, predicted) for predicted in classes) for true in classes)


def _frequent(names: tuple[str, ...], counts: np.ndarray) -> tuple[tuple[str, str, int], ...]:
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:10]
    pairs = [divmod(int(flat), len(counts)) for flat in order if wrong.flat[flat]]
    return tuple(
        (names[true], names[predicted], int(wrong[true, predicted])) for true, predicted in pairs
    )


def _per_class(run: RunFacts, found: dict[str, Any], uid: str) -> ClassBars:
    kinds = ("confusion", "initial_confusion", "solved_confusion")
    now, start, solved = (
        np.diag(found[kind]) / np.maximum(found[kind].sum(axis=1), 1) for kind in kinds
    )
    third = "Label Solve on those"
    if run.label_solve is None:
        solved, third = np.full(len(now), np.nan), ""
    order = np.flatnonzero(found["confusion"].sum(axis=1))  # Classes that have test images.
    title = "Right answers per class"
    if len(order) > _MANY_CLASSES:
        ranked = order[np.argsort(-now[order], kind="stable")]
        order = np.concatenate([ranked[:10], ranked[-10:]])
        title += ", the ten best and the ten worst"
    rows = [
        ClassShares(run.class_names[n], float(now[n]), (float(start[n]), float(solved[n])))
        for n in order
    ]
    legend = ("last set", "images at the start", third)
    return charts.class_bars(f"{uid}-classes", title, rows, legend)


# --- spectrum ---


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of K_ss.

    Attributes:
        condition: largest over smallest eigenvalue.
        condition_with_ridge: the same with the ridge of the solve.
        condition_at_start: condition with the initial images; None if they did not change.
        reg: the ridge, as a share of the mean eigenvalue.
        drawing: the chart; None if no eigenvalue is positive.
    """

    condition: float
    condition_with_ridge: float
    condition_at_start: float | None
    reg: float
    drawing: Drawing | None


def spectrum(run: RunFacts, uid: str) -> Spectrum:
    """Eigenvalues with the initial and the last images; the run must be analysed."""
    assert run.analysis is not None
    now, start = run.analysis["eigenvalues"], run.analysis["initial_eigenvalues"]
    changed, reg = not np.array_equal(now, start), float(run.config["reg"])
    shown = [Curve("last set", "k-test", _ranked(now), dots=len(now) <= 60)]
    if changed:
        shown.insert(0, Curve("images at the start", "k-start", _ranked(start)))
    chart = Chart(
        f"{uid}-spectrum",
        "Eigenvalues of the kernel of the support",
        f"{len(now)} eigenvalues, from {now.max():.4g} down to {now.min():.4g}.",
        "rank of the eigenvalue",
        shown,
        x_scale="linear",
        y_scale="log",
    )
    return Spectrum(
        analysis.condition(now),
        analysis.condition(now, reg),
        analysis.condition(start) if changed else None,
        reg,
        charts.draw(chart),
    )


def _ranked(eigenvalues: np.ndarray) -> list[tuple[float, float]]:
    return [(rank, float(value)) for rank, value in enumerate(eigenvalues, start=1)]
