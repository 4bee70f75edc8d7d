"""How well each set ranks the networks, and how good the best network by each set is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from examples.architecture_search.images import PROXIES, WHOLE
from examples.architecture_search.kept import Row

_DRAWS = 1000  # Of the networks, for the deviation of a rank correlation.


@dataclass(frozen=True)
class Ranking:
    """The ranking of the networks by one set.

    Attributes:
        by: name of the set.
        spearman: rank correlation of the scores on held-out images when trained on this set and
            those on test images when trained on the whole; None if either is constant, or a network
            has no score.
        deviation: of `spearman`, over networks drawn with replacement (bootstrap); or None.
        of_accuracies: as `spearman`, with accuracies in place of scores.
        best: the network with the best score on held-out images.
        test: test accuracy of the best when trained on the whole, in percent.
        seconds: core seconds of all trainings and their tests.
    """

    by: str
    spearman: float | None
    deviation: float | None
    of_accuracies: float | None
    best: str
    test: float
    seconds: float


def rankings(rows: Mapping[str, Row]) -> list[Ranking]:
    """A ranking for each set, the whole last."""
    names, tested = list(rows), _column(rows, WHOLE, "test")
    truth = _column(rows, WHOLE, "test_score")
    found = []
    for by in (*PROXIES, WHOLE):
        scores = _column(rows, by, "score")
        spearman = _spearman(scores, truth)
        best = int(np.argmax(np.nan_to_num(scores, nan=-np.inf)))  # A regression may fail.
        found.append(
            Ranking(
                by=by,
                spearman=spearman,
                deviation=None if spearman is None else _deviation(scores, truth),
                of_accuracies=_spearman(_column(rows, by, "held_out"), tested),
                best=names[best],
                test=100 * tested[best],
                seconds=sum(_column(rows, by, "seconds")),
            )
        )
    return found


def _column(rows: Mapping[str, Row], by: str, figure: str) -> list[float]:
    return [row[by][figure] for row in rows.values()]


def _spearman(first: list[float], second: list[float]) -> float | None:
    if min(len(set(first)), len(set(second))) < 2 or not np.isfinite([*first, *second]).all():
        return None
    return float(stats.spearmanr(first, second).statistic)


def _deviation(first: list[float], second: list[float]) -> float:
    rows = np.random.default_rng(0).integers(len(first), size=(_DRAWS, len(first)))
    one, other = (stats.rankdata(np.asarray(values)[rows], axis=1) for values in (first, second))
    middle = (len(first) + 1) / 2
    products, *squares = (
        np.sum((a - middle) * (b - middle), axis=1)
        for a, b in ((one, other), (one, one), (other, other))
    )
    some = (squares[0] > 0) & (squares[1] > 0)  # A draw may be of equals alone.
    return float(np.std(products[some] / np.sqrt(squares[0] * squares[1])[some], ddof=1))


def in_words(spearman: float | None) -> str:
    """Two decimals; '-' where there is none."""
    return "-" if spearman is None else f"{round(spearman, 2) + 0.0:.2f}"  # No '-0.00'.


def table(title: str, rows: Mapping[str, Row]) -> str:
    """The rankings as a markdown table, and a line on the best, the mean and compiling."""
    reference = [100 * accuracy for accuracy in _column(rows, WHOLE, "test")]
    lines = [
        f"| {title}, ranked by | Spearman | best found | its test accuracy | core seconds |",
        "|---|---|---|---|---|",
    ]
    for one in rankings(rows):
        spearman = in_words(one.spearman)
        if one.deviation is not None:
            spearman += f" ± {one.deviation:.2f}"
        lines.append(f"| {one.by} | {spearman} | {one.best} | {one.test:.2f} | {one.seconds:.0f} |")
    compiling = sum(row["compiling"] for row in rows.values())
    best = max(rows, key=lambda name: rows[name][WHOLE]["test"])
    lines += [
        "",
        f"{len(rows)} networks, trained on the whole: {min(reference):.2f} to "
        f"{max(reference):.2f} ({best}), mean {np.mean(reference):.2f}. Compiling took "
        f"{compiling:.0f} core seconds.",
    ]
    return "\n".join(lines)


def table_of_groups(
    title: str, rows: Mapping[str, Row], groups: Mapping[str, Sequence[str]]
) -> str:
    """Spearman of each proxy among all networks and among groups, as a markdown table.

    Args:
        title: the kind of networks.
        rows: all of them.
        groups: names of networks, by the title of the group.
    """
    lines = [
        f"| {title} | ranked by | {' | '.join(PROXIES)} |",
        f"|---|---|{'---|' * len(PROXIES)}",
    ]
    for group, names in {"all": tuple(rows), **groups}.items():
        found = rankings({name: rows[name] for name in names})[: len(PROXIES)]
        for by, figure in (("error", "spearman"), ("accuracy", "of_accuracies")):
            shares = " | ".join(in_words(getattr(one, figure)) for one in found)
            lines.append(f"| {group}, {len(names)} | {by} | {shares} |")
    return "\n".join(lines)
