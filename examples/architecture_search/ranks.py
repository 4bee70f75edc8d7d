"""How well each set ranks the networks, and what the best by each set is worth."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from examples.architecture_search.images import PROXIES, WHOLE
from examples.architecture_search.kept import Row


@dataclass(frozen=True)
class Ranking:
    """Of the networks by one set.

    Attributes:
        by: name of the set.
        spearman: correlation of the ranks: accuracy on held-out images of those trained on this
            set, on test images of those trained on the whole; NaN where one is constant.
        best: the network that is best on held-out images.
        test: test accuracy of the best when trained on the whole, in percent.
        seconds: core seconds of all trainings and their tests.
    """

    by: str
    spearman: float
    best: str
    test: float
    seconds: float


def rankings(rows: Mapping[str, Row]) -> list[Ranking]:
    """One for each set, the whole last."""
    reference = [row[WHOLE]["test"] for row in rows.values()]
    names = list(rows)
    found = []
    for by in (*PROXIES, WHOLE):
        accuracies = [row[by]["held_out"] for row in rows.values()]
        best = int(np.argmax(accuracies))
        spearman = float(stats.spearmanr(accuracies, reference).statistic)
        seconds = sum(row[by]["seconds"] for row in rows.values())
        found.append(Ranking(by, spearman, names[best], 100 * reference[best], seconds))
    return found


def table(title: str, rows: Mapping[str, Row]) -> str:
    """The rankings as a table of markdown, and a line on the best, the mean and compiling."""
    reference = [100 * row[WHOLE]["test"] for row in rows.values()]
    lines = [
        f"| {title}, ranked by | Spearman | best found | its test accuracy | core seconds |",
        "|---|---|---|---|---|",
    ]
    for one in rankings(rows):
        lines.append(
            f"| {one.by} | {one.spearman:.2f} | {one.best} | {one.test:.2f} | {one.seconds:.0f} |"
        )
    compiling = sum(row["compiling"] for row in rows.values())
    best = max(rows, key=lambda name: rows[name][WHOLE]["test"])
    lines += [
        "",
        f"{len(rows)} networks, trained on the whole: {min(reference):.2f} to "
        f"{max(reference):.2f} ({best}), mean {np.mean(reference):.2f}. Compiling took "
        f"{compiling:.0f} core seconds.",
    ]
    return "\n".join(lines)
