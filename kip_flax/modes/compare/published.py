"""Published test accuracies (%), to be held beside ours, and what makes them hard to compare."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

# Images per class of the figures below.
PER_CLASS = (1, 10, 50)
KERNEL, NETWORK = "kernel", "network"


@dataclass(frozen=True)
class Figures:
    """Accuracies of one method.

    Attributes:
        source: where they are from.
        measured_by: 'kernel' (kernel ridge regression) or 'network' (trained on the set).
        first_hand: read at the source; otherwise as others report them.
        accuracies: by data set, for `PER_CLASS`; None where none is reported.
    """

    source: str
    measured_by: str
    first_hand: bool
    accuracies: dict[str, tuple[float | None, ...]]


# By the method's name: those of kip_flax.modes.compare.sets.
FIGURES: dict[str, tuple[Figures, ...]] = {
    "KIP": (
        Figures(
            "Nguyen et al., NeurIPS 2021, ConvNet, the best variant",
            KERNEL,
            False,
            {
                "mnist": (97.3, 99.1, 99.5),
                "fashion_mnist": (82.9, 91.0, 92.4),
                "svhn": (64.3, 81.1, 84.3),
                "cifar10": (64.7, 75.6, 80.6),
                "cifar100": (34.9, 49.5, None),
            },
        ),
        Figures(
            "Nguyen et al., NeurIPS 2021, to a finite ConvNet, the best variant",
            NETWORK,
            False,
            {
                "mnist": (90.1, 97.5, 98.3),
                "fashion_mnist": (73.5, 86.8, 88.0),
                "svhn": (57.3, 75.0, 80.5),
                "cifar10": (49.9, 62.7, 68.6),
                "cifar100": (15.7, 28.3, None),
            },
        ),
    ),
    "Label Solve": (
        Figures(
            "Nguyen et al., NeurIPS 2021, ConvNet (SVHN, CIFAR: ZCA)",
            KERNEL,
            True,
            {
                "mnist": (73.35, 96.39, 98.28),
                "fashion_mnist": (65.30, 80.84, 86.85),
                "svhn": (23.9, 52.8, 76.8),
                "cifar10": (26.09, 53.59, 65.89),
                "cifar100": (23.81, 39.17, None),
            },
        ),
    ),
    "DC": (
        Figures(
            "Zhao et al., ICLR 2021, ConvNet-3",
            NETWORK,
            True,
            {
                "mnist": (91.7, 97.4, 98.8),
                "fashion_mnist": (70.5, 82.3, 83.6),
                "svhn": (31.2, 76.1, 82.3),
                "cifar10": (28.3, 44.9, 53.9),
                "cifar100": (12.8, 25.2, None),
            },
        ),
    ),
    "DSA": (
        Figures(
            "Zhao and Bilen, ICML 2021, ConvNet-3",
            NETWORK,
            True,
            {
                "mnist": (88.7, 97.8, 99.2),
                "fashion_mnist": (70.6, 84.6, 88.7),
                "svhn": (27.5, 79.2, 84.4),
                "cifar10": (28.8, 52.1, 60.6),
                "cifar100": (13.9, 32.3, None),
            },
        ),
    ),
}

# MD5 of the first training batch as its publisher gives it out.
_CIFAR10_MD5 = "c99cafc152244af753f735de768cd75f"


def accuracy(method: str, dataset: str, per_class: int) -> list[tuple[float, Figures]]:
    """What is published for a method, a data set and a number of images per class."""
    if per_class not in PER_CLASS:
        return []
    place = PER_CLASS.index(per_class)
    found = ((f.accuracies.get(dataset, (None,) * 3)[place], f) for f in FIGURES.get(method, ()))
    return [(value, figures) for value, figures in found if value is not None]


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
