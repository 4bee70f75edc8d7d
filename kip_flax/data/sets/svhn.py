"""SVHN (Netzer et al., 2011): the cropped digits, two MATLAB files."""

from pathlib import Path

from kip_flax.data import readers
from kip_flax.data.source import Facts, Source

NAMES = ("svhn",)
FACTS = {
    "svhn": Facts(
        "SVHN",
        # VICO-UoE/DatasetCondensation, utils.py (get_dataset).
        ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
        # RFAD, run_distillation.py: SVHN is normalised and whitened, CIFAR only whitened.
        {"rfad": "zca_normalize"},
        mirrorable=False,
    )
}


def read(name: str, root: Path, image_size: int) -> Source:
    """Images uint8 (32, 32, 3) of the two files in `root`, or in its folder svhn."""
    train, test = readers.find(root, ("svhn",), ("train_32x32.mat", "test_32x32.mat"))
    parts = readers.read_svhn(train), readers.read_svhn(test)
    return Source((train, test), *parts, tuple("0123456789"))
