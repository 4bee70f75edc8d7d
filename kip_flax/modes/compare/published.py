"""Published test accuracies (%), to be held beside ours, and what makes them hard to compare."""

import functools
import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

_FILE = "published.json"
# MD5 of the first training batch as its publisher gives it out.
_CIFAR10_MD5 = "c99cafc152244af753f735de768cd75f"


@dataclass(frozen=True)
class Published:
    """Accuracies of one method as published.

    Attributes:
        method: the title of its algorithm.
        source: where they are from.
        measured_by: 'kernel' (kernel ridge regression) or 'network' (trained on the set).
        first_hand: read at the source; otherwise as others report them.
        accuracies: in %, by data set and images per class.
    """

    method: str
    source: str
    measured_by: str
    first_hand: bool
    accuracies: dict[str, dict[float, float]]


@functools.cache
def figures() -> tuple[Published, ...]:
    """All that `published.json` holds."""
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


def accuracy(method: str, dataset: str, per_class: float) -> list[tuple[float, Published]]:
    """What is published for a method, a data set and a number of images per class."""
    found = [one for one in figures() if one.method == method]
    return [
        (one.accuracies[dataset][per_class], one)
        for one in found
        if per_class in one.accuracies.get(dataset, {})
    ]


def data_note(dataset: str, data_dir: str) -> str:
    """How the data at hand differ from those of the publications, as far as files tell; or ''."""
    if dataset != "cifar10":
        return ""
    name = "data_batch_1"
    for folder in (Path(data_dir), Path(data_dir) / "cifar-10-batches-py"):
        if (folder / name).is_file():
            digest = hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest()
            if digest != _CIFAR10_MD5:
                return (
                    "The CIFAR-10 files here are not the publisher's (another checksum; a JPEG "
                    "copy, for example): published figures are on other pixels."
                )
    return ""
