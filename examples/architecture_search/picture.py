"""One picture: each network by a proxy and by the whole."""

from collections.abc import Mapping
from pathlib import Path

from examples.architecture_search.images import PROXIES, WHOLE
from examples.architecture_search.kept import Row
from examples.architecture_search.ranks import rankings


def draw(spaces: Mapping[str, Mapping[str, Row]], path: Path) -> None:
    """A row of panels for each space of networks (title -> rows), a panel for each proxy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.6 * len(spaces)), layout="constrained")
    panels = figure.subplots(len(spaces), len(PROXIES), sharey="row", squeeze=False)
    for line, (title, rows) in zip(panels, spaces.items(), strict=True):
        whole = [100 * row[WHOLE]["test"] for row in rows.values()]
        for axes, proxy, ranking in zip(line, PROXIES, rankings(rows), strict=False):
            axes.scatter([100 * row[proxy]["held_out"] for row in rows.values()], whole, s=9)
            axes.set_title(f"{proxy}: {ranking.spearman:.2f}", fontsize=10)
        line[0].set_ylabel(f"{title}:\ntest accuracy, whole, %", fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel("held-out accuracy, this set, %", fontsize=9)
    figure.savefig(path, dpi=150)
