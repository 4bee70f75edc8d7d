"""Published test accuracies (%), for comparison with ours."""

import functools
import json
from dataclasses import dataclass
from importlib import resources

_FILE = "published.json"


@dataclass(frozen=True)
class Published:
    """Published accuracies of one method.

    Attributes:
        method: the title of its algorithm.
        source: the publication.
        measured_by: 'kernel' (kernel ridge regression) or 'network' (trained on the set).
        first_hand: whether they were read at the source; otherwise as others report them.
        accuracies: in %, by data set and images per class.
    """

    method: str
    source: str
    measured_by: str
    first_hand: bool
    accuracies: dict[str, dict[float, float]]


@functools.cache
def figures() -> tuple[Published, ...]:
    """All entries of `published.json`."""
    content = json.loads(resources.files(__package__).joinpath(_FILE).read_text(encoding="utf-8"))
    counts = content["images_per_class"]
    return tuple(
        Published(**{**entry, "accuracies": _by_count(entry["accuracies"], counts)})
        for entry in content["figures"]
    )


def _by_count(
    accuracies: dict[str, list[float | None]], counts: list[float]
) -> dict[str, dict[float, float]]:
    return {
        dataset: {n: v for n, v in zip(counts, values, strict=True) if v is not None}
        for dataset, values in accuracies.items()
    }


def accuracy(method: str, dataset: str, images_per_class: float) -> list[tuple[float, Published]]:
    """Published accuracies (%) of a method for a data set and images per class, with sources."""
    found = [one for one in figures() if one.method == method]
    return [
        (one.accuracies[dataset][images_per_class], one)
        for one in found
        if images_per_class in one.accuracies.get(dataset, {})
    ]
