"""One picture: the rank of each network by a proxy and by the whole."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy import stats

from examples.architecture_search.images import PROXIES, WHOLE
from examples.architecture_search.kept import Row
from examples.architecture_search.ranks import in_words, rankings
from kip_flax.runtime import files


def draw(spaces: Mapping[str, Mapping[str, Row]], path: Path) -> None:
    """A row of panels for each space of networks (title -> rows), a panel for each proxy."""
    from matplotlib.figure import Figure

    from kip_flax.modes.figures.draw import rendered

    figure = Figure(figsize=(7.5, 2.4 * len(spaces)), layout="constrained")
    panels = figure.subplots(len(spaces), len(PROXIES), sharey="row", squeeze=False)
    for line, (title, rows) in zip(panels, spaces.items(), strict=True):
        whole = _ranks([row[WHOLE]["test_score"] for row in rows.values()])
        for axes, proxy, ranking in zip(line, PROXIES, rankings(rows), strict=False):
            axes.scatter(_ranks([row[proxy]["score"] for row in rows.values()]), whole, s=9)
            axes.set_title(f"{proxy}: {in_words(ranking.spearman)}", fontsize=10)
        line[0].set_ylabel(f"{title}:\nrank by the whole", fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel("rank by this set, 1 is best", fontsize=9)
    files.write_bytes_atomic(path, rendered(figure, "png"))


def _ranks(scores: list[float]) -> np.ndarray:
    return stats.rankdata([-score for score in scores])
