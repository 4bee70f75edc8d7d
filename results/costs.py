"""Accuracy against core hours: the table in docs/rivals.md and its pictures, from all results.

python -m results.costs   writes both anew
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from kip_flax.modes.figures.draw import rendered
from kip_flax.networks import figures
from kip_flax.runtime import files
from results import card, coresets, record, words
from results.experiments import EXPERIMENTS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "rivals.md"
DATASETS = ("cifar10", "mnist")
OTHERS = {"mlp": "MLP", "resnet18_in": "ResNet-18"}  # Networks that learn from the best sets too.
_CONVNET = words.NETWORKS[0]
BEST = 4  # Sets of ten images, one of each method and kind of labels.
_BEGIN, _END = "<!-- costs: written by python -m results.costs -->", "<!-- end of costs -->"
_COLUMNS = ("Images", "Method", "Labels", "Core hours, in all", "KRR", "Network", "Normalised")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Cost:
    """A set, its cost and its accuracies on all test images.

    Attributes:
        dataset: its name in configurations.
        size: images of the set.
        method, labels: in words.
        core_hours: processor time, with that of the sets it continues; None for real images.
        krr: accuracy of kernel ridge regression, 0 to 1; None if not measured.
        networks: rows of `networks.figures` by network; only those that were measured.
        row: name of the experiment; '' for real images.
        start: what it began from, in brackets, unless natural images with their labels.
        first: the first row of its chain.
    """

    dataset: str
    size: int
    method: str
    labels: str
    core_hours: float | None
    krr: float | None
    networks: dict[str, figures.Row]
    row: str = ""
    start: str = ""
    first: str = ""


def costs(results: Path, dataset: str) -> list[Cost]:
    """The sets of a data set that networks were trained on, sorted by images and core hours."""
    found = [
        cost(results / experiment.name)
        for experiment in EXPERIMENTS
        if record.is_done(experiment, results)
    ]
    found += [_coreset(row, results) for row in coresets.read(results)]
    here = [one for one in found if one.dataset == dataset and one.networks]
    return sorted(here, key=lambda one: (one.size, one.core_hours or 0.0))


def cost(folder: Path) -> Cost:
    """What the row of the folder results/NAME cost, and what it reaches."""
    entry = record.read(folder)
    config = entry["config"]
    return Cost(
        dataset=config["dataset"]["name"],
        size=config["support"]["size"],
        method=words.method(config),
        labels=words.labels(config),
        core_hours=record.core_seconds(folder) / 3600,
        krr=entry["draws"][0]["final"]["accuracy"],
        networks={row["network"]: row for row in entry.get("network", [])},
        row=folder.name,
        start=words.began(config),
        first=record.chain(folder)[0].name,
    )


def _coreset(row: dict[str, Any], results: Path) -> Cost:
    configs = [record.read(results / name)["config"] for name in coresets.EXPERIMENTS_OF_TEN]
    (config,) = (each for each in configs if each["dataset"]["name"] == row["dataset"])
    return Cost(
        dataset=row["dataset"],
        size=row["size"],
        method=f"real images, {row['set']}",
        labels="fixed" + words.space(config),
        core_hours=None,
        krr=row["krr"],
        networks=row["networks"],
    )


def table(found: list[Cost]) -> str:
    """A markdown table with a line for each set."""
    rows = []
    for one in found:
        hours = "" if one.core_hours is None else f"{one.core_hours:.2g}"
        krr = "" if one.krr is None else f"{100 * one.krr:.2f}"
        rows.append(
            (str(one.size), _linked(one) + one.start, one.labels, hours, krr, *_accuracies(one))
        )
    return _markdown(_COLUMNS, rows)


def _linked(one: Cost) -> str:
    """The method, linked to the card of the row."""
    return f"[{one.method}](../results/{one.row}/{card.CARD})" if one.row else one.method


def best(found: list[Cost], size: int = 10) -> list[Cost]:
    """The sets that the ConvNet-3 learns most from by these figures, the best first.

    There is one for each kind of sets (method and labels), of `BEST` kinds.
    """
    kinds: dict[tuple[str, str], list[Cost]] = {}
    for one in found:
        if one.size == size and one.core_hours is not None and _CONVNET in one.networks:
            kinds.setdefault((one.method, one.labels), []).append(one)

    def accuracy(one: Cost) -> float:
        return float(one.networks[_CONVNET]["mean"])

    leaders = (max(sets, key=accuracy) for sets in kinds.values())
    return sorted(leaders, key=accuracy, reverse=True)[:BEST]


def table_of_best(found: list[Cost]) -> str:
    """A markdown table of `best` with the other networks; '' where none was trained."""
    chosen = best(found)
    measured = {name for one in chosen for name in one.networks}
    others = {name: title for name, title in OTHERS.items() if name in measured}
    if not others:
        return ""
    names = {_CONVNET: "ConvNet-3"} | others
    rows = [
        (str(one.size), _linked(one), one.labels, *_accuracies(one, tuple(names))) for one in chosen
    ]
    return _markdown(("Images", "Method", "Labels", *names.values()), rows)


def _accuracies(one: Cost, names: tuple[str, ...] = words.NETWORKS) -> tuple[str, ...]:
    return words.by_networks({"network": list(one.networks.values())}, names)


def _markdown(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join(lines + [f"| {' | '.join(cells)} |" for cells in rows])


def figure(found: list[Cost]) -> Figure:
    """Accuracy of networks over core hours, a panel for each number of images."""
    sizes = sorted({one.size for one in found if one.core_hours})
    drawn = Figure(figsize=(4.6 * len(sizes), 5.4), layout="constrained")
    axes = drawn.subplots(1, len(sizes), squeeze=False)[0]
    for axis, size in zip(axes, sizes, strict=True):
        of_size = [one for one in found if one.size == size and _CONVNET in one.networks]
        for number, (label, sets) in enumerate(_by_method(of_size).items()):
            rows = [one.networks[_CONVNET] for one in sets]
            means, spreads = ([100 * row[name] for row in rows] for name in ("mean", "std"))
            marker = f"{_MARKERS[number % len(_MARKERS)]}-"
            style = {"fmt": marker, "ms": 5, "lw": 0.8, "capsize": 2, "label": label}
            axis.errorbar([one.core_hours for one in sets], means, spreads, **style)
        for one in (one for one in of_size if not one.core_hours):
            level = 100 * one.networks[_CONVNET]["mean"]
            axis.axhline(level, color="grey", lw=0.8, ls="--")
            where = {"xy": (0.99, level), "xycoords": ("axes fraction", "data")}
            axis.annotate(one.method, **where, fontsize=6, ha="right", va="bottom")
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set(xlabel="core hours", ylabel="test accuracy of networks, %", title=f"{size} images")
        axis.grid(alpha=0.25)
        axis.legend(fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.15))  # Hides no set.
    return drawn


def _by_method(found: list[Cost]) -> dict[str, list[Cost]]:
    """Learned sets by their method and labels; a chain of rows is one line of the picture."""
    series: dict[tuple[str, str], list[Cost]] = {}
    for one in found:
        if one.core_hours:
            series.setdefault((f"{one.method}, {one.labels}", one.first), []).append(one)
    names = [label for label, _ in series]
    return {
        label + (f" ({sets[0].row})" if names.count(label) > 1 else ""): sets
        for (label, _), sets in series.items()
    }


def page(results: Path, text: str) -> str:
    """The page `text` with the tables of all data sets between its two marks."""
    head, rest = text.split(_BEGIN)
    _, tail = rest.split(_END)
    parts = []
    for dataset in DATASETS:
        found = costs(results, dataset)
        name = words.dataset({"dataset": {"name": dataset}})
        picture = f"![Accuracy of networks over core hours, {name}]({_picture(dataset)})"
        tables = filter(None, (table(found), picture, table_of_best(found)))
        parts.append(f"### {name}\n\n" + "\n\n".join(tables) + "\n")
    return f"{head}{_BEGIN}\n\n" + "\n".join(parts) + f"\n{_END}{tail}"


def _picture(dataset: str) -> str:
    return f"costs_{dataset}.png"


def main() -> None:
    """Writes the tables and draws the pictures."""
    results = ROOT / "results"
    files.write_bytes_atomic(PAGE, page(results, PAGE.read_text()).encode())
    for dataset in DATASETS:
        drawn = rendered(figure(costs(results, dataset)), "png")
        files.write_bytes_atomic(PAGE.parent / _picture(dataset), drawn)


if __name__ == "__main__":
    main()
