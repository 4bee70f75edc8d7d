"""The words that describe a row, in the table and on its card."""

import shlex
from pathlib import Path
from typing import Any

from configs import default
from kip_flax import algorithms
from kip_flax.networks import figures
from results.experiment import Experiment, command

NETWORKS = ("convnet_plain:3", "convnet_in")  # Every set is measured by these,
SEEDS = 5  # and, but for large sets, by as many of each.
DATASETS = {  # In the order of the pages.
    "digits": "Digits 8x8",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10 (JPEG copy)",
}
_PREPROCESSING = {
    "zca_normalize": ", zca",
    "zca": ", zca",
    "zca_center": ", zca",
    "none": ", not standardised",
}


def dataset(config: dict[str, Any]) -> str:
    """The name of the data set, with a note on the copy where it is not the original."""
    return DATASETS[config["dataset"]["name"]]


def is_embedded(config: dict[str, Any]) -> bool:
    """Whether the data come with the packages."""
    return config["dataset"]["name"] == "digits"


def method(config: dict[str, Any]) -> str:
    """Method, variant, architecture, the kernel's kind where it is not the NTK, and 'mirrored'."""
    facts, kernel = algorithms.facts(config["algorithm"]), config["kernel"]
    kind = kernel["kind"] if kernel["kind"] != default.get_config().kernel.kind else ""
    sides = "mirrored" if kernel.get("mirrored") else ""
    return ", ".join(filter(None, (facts.name, kernel["architecture"], kind, sides)))


def labels(config: dict[str, Any]) -> str:
    """'learned, zca': how the labels were made, and settings that differ from most rows."""
    ridge = f", reg {config['reg']:g}" if config["reg"] != default.get_config().reg else ""
    return _labels_are(config) + space(config) + ridge


def space(config: dict[str, Any]) -> str:
    """', zca': how the images were preprocessed; '' for standardised ones."""
    return _PREPROCESSING.get(config["preprocess"], "")


def began(config: dict[str, Any]) -> str:
    """The start of a set in brackets, unless it is natural images with their labels; else ''."""
    if (init := config["support"]["init"]) != "real":
        return f" ({Path(init).parent.name or init})"  # The row of the set that it goes on from.
    learned = algorithms.facts(config["algorithm"]).learns_images
    return " (labels solved)" if learned and _labels_are(config) == "solved" else ""


def counts_steps(config: dict[str, Any]) -> bool:
    """Whether the algorithm counts training steps; Label Solve counts tiles."""
    return algorithms.facts(config["algorithm"]).unit == "step"


def hours(draws: list[dict[str, Any]]) -> tuple[str, str]:
    """Mean hours over the draws: wall time and processor time; '-' if not known."""
    wall, busy = ([draw[time] for draw in draws] for time in ("seconds", "cpu_seconds"))
    return _mean_hours(wall), _mean_hours(busy)


def by_networks(entry: dict[str, Any], names: tuple[str, ...] = NETWORKS) -> tuple[str, ...]:
    """Accuracies of the networks `names` on the row's set; '' for one not measured.

    Their number follows in brackets where it is not `SEEDS`.
    """
    found = {row["network"]: row for row in entry.get("network", [])}
    return tuple(_accuracy(found[name]) if name in found else "" for name in names)


def _accuracy(row: figures.Row) -> str:
    number = f" ({row['seeds']})" if row["seeds"] != SEEDS else ""
    return figures.spread_in_percent(row) + number


def evaluation(experiment: Experiment, entry: dict[str, Any]) -> str:
    """The command that measures the row's set on the test images; `entry`: its figures."""
    data = [] if is_embedded(entry["config"]) else ["--config.dataset.data_dir=data"]
    path = f"results/{experiment.name}/{entry['set']}"
    arguments = command(experiment, 0, watched=False)
    return shlex.join(["python", *arguments, *data, "--mode=evaluate", f"--distilled={path}"])


def _labels_are(config: dict[str, Any]) -> str:
    return algorithms.known(config["algorithm"]).labels(config["support"]["learn_labels"])


def _mean_hours(seconds: list[float | None]) -> str:
    known = [value / 3600 for value in seconds if value is not None]
    if not known:
        return "-"
    mean = sum(known) / len(known)
    return f"{mean:.2f}" if mean >= 0.01 else f"{mean:.2g}"
