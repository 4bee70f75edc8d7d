"""Several runs side by side: a table of results, one of differing fields, and charts."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kip_flax.modes import pages
from kip_flax.modes.pages import NONE
from kip_flax.modes.report import charts
from kip_flax.modes.report.charts import Chart, Curve, Drawing
from kip_flax.modes.report.facts import RunFacts
from kip_flax.networks import figures as network_figures
from kip_flax.runtime import console

_COLOURS = 4
_PLACES = ("dataset.data_dir", "mesh.", "checkpoint.", "log.", "report.")

Rows = list[list[str]]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs side by side, with a column for each in both tables.

    Attributes:
        names: names of the runs.
        figures: rows of their results and costs.
        differing: rows of the configuration's fields that differ.
        accuracy: chart of the kernel's accuracy over the steps.
        by_networks: the same for networks; None if none were trained.
    """

    names: list[str]
    figures: Rows
    differing: Rows
    accuracy: Drawing | None
    by_networks: Drawing | None


def compare(runs: Sequence[RunFacts]) -> Comparison:
    """Compares runs, which may be on different data sets."""
    names = _names(runs)
    return Comparison(
        names,
        _figures(runs),
        _differing(runs),
        charts.draw(_accuracy(names, runs)),
        charts.draw(_by_networks(names, runs)),
    )


def _accuracy(names: Sequence[str], runs: Sequence[RunFacts]) -> Chart:
    shown = [
        Curve(name, css, [(r["step"], r["accuracy"]) for r in run.evaluations], True)
        for name, css, run in zip(names, _styles(range(len(runs))), runs, strict=True)
    ]
    return _over_steps("all-accuracy", "Accuracy of all runs over the steps", shown)


def _by_networks(names: Sequence[str], runs: Sequence[RunFacts]) -> Chart:
    """One colour per run, as in the chart of the kernel."""
    found = []
    for number, (name, run) in enumerate(zip(names, runs, strict=True)):
        for network, rows in run.watched.items():
            points = [(step, row["mean"]) for step, row in rows.items() if row["mean"] is not None]
            if points:
                found.append((number, f"{name}, {network}", points))
    styles = _styles([number for number, _, _ in found])
    shown = [
        Curve(name, css, points, True) for (_, name, points), css in zip(found, styles, strict=True)
    ]
    title = "Accuracy of networks trained on the sets, over the steps"
    return _over_steps("all-networks", title, shown)


def _styles(numbers: Iterable[int]) -> list[str]:
    """Classes of curves: the colour of each one's run, and dashes of its own within a colour.

    Dashes come again after `_COLOURS` curves of a colour.
    """
    used: Counter[int] = Counter()
    styles = []
    for colour in (number % _COLOURS for number in numbers):
        styles.append(f"s{colour} d{(colour + used[colour]) % _COLOURS}")
        used[colour] += 1
    return styles


def _over_steps(name: str, title: str, shown: list[Curve]) -> Chart:
    ends = [(curve.name, *curve.points[-1]) for curve in shown]
    return Chart(
        name,
        title,
        "; ".join(f"{name} {100 * share:.2f} % at step {step:g}" for name, step, share in ends),
        "steps (logarithmic in 1 + step)",
        shown,
        y_scale="percent",
    )


def _figures(runs: Sequence[RunFacts]) -> Rows:
    return [
        ["status", *(run.result["status"] for run in runs)],
        ["measured on", *(f"{run.split} images" for run in runs)],
        ["accuracy", *(pages.percent(run.evaluations[-1]["accuracy"]) for run in runs)],
        ["at step 0", *(pages.percent(run.evaluations[0]["accuracy"]) for run in runs)],
        *_networks(runs),
        ["Label Solve", *(_label_solve(run) for run in runs)],
        ["mse", *(f"{run.evaluations[-1]['mse']:.5f}" for run in runs)],
        ["images", *(pages.number(run.config["support.size"]) for run in runs)],
        ["steps", *(pages.number(run.evaluations[-1]["step"]) for run in runs)],
        ["time", *(console.duration(run.result["seconds"]) for run in runs)],
        ["hardware", *(str(run.result.get("hardware", NONE)) for run in runs)],
    ]


def _networks(runs: Sequence[RunFacts]) -> Rows:
    """A row for each network that at least one run was tested with."""
    names = dict.fromkeys(row["network"] for run in runs for row in run.reached)
    reached = [
        {
            row["network"]: f"{network_figures.spread(row)} of {network_figures.words(row['on'])}"
            for row in run.reached
        }
        for run in runs
    ]
    return [[f"by {name}", *(found.get(name, NONE) for found in reached)] for name in names]


def _label_solve(run: RunFacts) -> str:
    if not run.algorithm.learns_images:
        # By another loss, from learned images or half done it is no baseline of the other runs.
        finished = run.result["status"] == "finished"
        comparable = run.start == "real" and finished and not run.algorithm.variant
        return pages.percent(run.evaluations[-1]["accuracy"]) if comparable else NONE
    return pages.percent(run.label_solve.accuracy) if run.label_solve else NONE


def _differing(runs: Sequence[RunFacts]) -> Rows:
    fields = sorted({name for run in runs for name in run.config if not name.startswith(_PLACES)})
    rows = [[name, *(str(run.config.get(name, NONE)) for run in runs)] for name in fields]
    return [row for row in rows if len(set(row[1:])) > 1]


def _names(runs: Sequence[RunFacts]) -> list[str]:
    """Names of the folders, numbered if several are the same."""
    names = [run.workdir.name for run in runs]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: n + 1].count(name)})"
        for n, name in enumerate(names)
    ]
