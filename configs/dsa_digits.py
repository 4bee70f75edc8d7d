"""DSA (gradient matching, augmented) on the embedded digits: one learned image per class.

Setting: Zhao and Bilen, ICML 2021 (arXiv 2102.08259), as its code does. For 10 images per
class pass `dsa_digits.py:10` (also 20, 30, 40, 50).
Expected: no figure is published.
Measured: after 100 steps kernel 88.86 %, network 87.28 %.

Run: python main.py --config=configs/dsa_digits.py --workdir=runs/dsa_digits
"""

from ml_collections import ConfigDict

from configs import _matching, dc_digits


def get_config(images_per_class: str = "1") -> ConfigDict:
    """The published settings for so many images per class."""
    return _matching.with_augmentation(dc_digits.get_config(images_per_class), flip=False)
