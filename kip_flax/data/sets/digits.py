"""The 1,797 handwritten digits of 8x8 pixels that scikit-learn contains, without a test set."""

from pathlib import Path

import numpy as np

from kip_flax.data.source import Facts, Source

NAMES = ("digits",)
NEEDS_FILES = False
FACTS = {
    "digits": Facts(preprocess_by={"rfad": "standard", "frepo": "standard"}, mirrorable=False),
}


def read(name: str, root: Path, image_size: int) -> Source:
    """Images uint8 (8, 8, 1): 0..16 becomes 0..255."""
    from sklearn.datasets import load_digits  # It takes a second to import.

    found = load_digits()
    images = np.rint(found.images * (255 / 16)).astype(np.uint8)[..., None]
    where = Path("scikit-learn's digits")
    return Source((where, where), (images, found.target), None, tuple("0123456789"))
