"""The head of a report of several runs: their figures in one table, and one chart."""

from collections.abc import Sequence

from kip_flax.modes.report import results as report_results
from kip_flax.modes.report.charts import Line, line_chart
from kip_flax.modes.report.facts import Facts
from kip_flax.modes.report.text import NONE, number, percent, table
from kip_flax.runtime import console

_COLOURS = 4
_PLACES = ("dataset.data_dir", "mesh.", "checkpoint.", "log.", "report.")


def head(runs: Sequence[Facts]) -> str:
    """Title, table of figures and of fields that differ, chart of accuracies."""
    names = _names(runs)
    lines = [
        Line(name, f"s{n % _COLOURS}", [(r["step"], r["accuracy"]) for r in run.evaluations], True)
        for n, (name, run) in enumerate(zip(names, runs, strict=True))
    ]
    told = "; ".join(
        f"{line.name} {100 * line.points[-1][1]:.2f} % at step {line.points[-1][0]:g}"
        for line in lines
    )
    chart = line_chart(
        "all-accuracy",
        "Accuracy of all runs over the steps",
        told,
        lines,
        x_label="steps (logarithmic in 1 + step)",
        percent=True,
    )
    return (
        f"<header><h1>{len(runs)} runs side by side</h1></header>"
        f'<div class="charts"><figure>{_figures(names, runs)}</figure>'
        f"<figure><h2>Accuracy</h2>{chart}</figure></div>"
    )


def _figures(names: Sequence[str], runs: Sequence[Facts]) -> str:
    def solved(run: Facts) -> str:
        if run.config["algorithm"] == "ls":
            return percent(run.evaluations[-1]["accuracy"])
        level = report_results.solved(run)
        return percent(level[0]) if level else NONE

    rows = [
        ["status", *(run.result["status"] for run in runs)],
        ["measured on", *(f"{run.split} images" for run in runs)],
        ["accuracy", *(percent(run.evaluations[-1]["accuracy"]) for run in runs)],
        ["at step 0", *(percent(run.evaluations[0]["accuracy"]) for run in runs)],
        ["Label Solve", *(solved(run) for run in runs)],
        ["mse", *(f"{run.evaluations[-1]['mse']:.5f}" for run in runs)],
        ["images", *(number(run.config["support.size"]) for run in runs)],
        ["steps", *(number(run.evaluations[-1]["step"]) for run in runs)],
        ["time", *(console.duration(run.result["seconds"]) for run in runs)],
        ["hardware", *(str(run.result.get("hardware", NONE)) for run in runs)],
    ]
    figures = table(["", *names], rows, "Figures")
    fields = sorted({name for run in runs for name in run.config if not name.startswith(_PLACES)})
    values = [[name, *(str(run.config.get(name, NONE)) for run in runs)] for name in fields]
    differing = [row for row in values if len(set(row[1:])) > 1]
    told = table(["field", *names], differing, "Fields in which they differ") if differing else ""
    return figures + told


def _names(runs: Sequence[Facts]) -> list[str]:
    """The folders' names, numbered where two are the same."""
    names = [run.workdir.name for run in runs]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: n + 1].count(name)})"
        for n, name in enumerate(names)
    ]
