"""The page results/README.md, from the figures of all experiments, and the card of each.

python -m results.table   writes them anew; _head.md and _tail.md are its texts
"""

from pathlib import Path

from kip_flax.runtime import files
from results import card, record, words
from results.experiment import Experiment
from results.experiments import EXPERIMENTS

_COLUMNS = (
    *("Data", "Method", "Images", "Labels", "Start", "KRR", "Published", "Network"),
    *("Normalised", "Steps", "Hours", "Core hours, this run"),
)


def render(results: Path) -> str:
    """README.md of the folder `results`."""
    rows = [_row(experiment, results / experiment.name) for experiment in EXPERIMENTS]
    done = [experiment for experiment in EXPERIMENTS if record.is_done(experiment, results)]
    commands = [words.evaluation(e, record.read(results / e.name)) for e in done]
    return (
        _text("_head.md")
        + f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|\n"
        + "".join(rows)
        + "\n"
        + _text("_tail.md")
        + "".join(f"{command}\n" for command in commands)
        + "```\n"
    )


def write(results: Path) -> None:
    """Writes README.md into the folder `results`, and its card into that of each row."""
    files.write_bytes_atomic(results / "README.md", render(results).encode())
    for experiment in EXPERIMENTS:
        if record.is_done(experiment, results):
            text = card.render(experiment, results / experiment.name)
            files.write_bytes_atomic(results / experiment.name / card.CARD, text.encode())


def _text(name: str) -> str:
    """What the page says above the table (_head.md) or below it (_tail.md)."""
    return (Path(__file__).resolve().parent / name).read_text(encoding="utf-8")


def _row(experiment: Experiment, folder: Path) -> str:
    published = "-" if experiment.published is None else f"{experiment.published:g}"
    if not record.is_done(experiment, folder.parent):
        return f"| `{experiment.name}` | | | | | not measured | {published} | | | | | |\n"
    figures = record.read(folder)
    config = figures["config"]
    draws = figures["draws"]
    cells = [
        words.dataset(config),
        f"[{words.method(config)}]({experiment.name}/)",
        str(config["support"]["size"]),
        words.labels(config),
        record.percent([draw["initial"]["accuracy"] for draw in draws]) + words.began(config),
        record.percent([draw["final"]["accuracy"] for draw in draws]),
        published,
        *words.by_networks(figures),
        str(draws[0]["step"]) if words.counts_steps(config) else "",
        *words.hours(draws),
    ]
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    write(Path(__file__).resolve().parent)
