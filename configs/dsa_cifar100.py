r"""DSA (gradient matching, augmented) on CIFAR-100: one learned image per class.

Setting: Zhao and Bilen, ICML 2021 (arXiv 2102.08259), as its code does. For 10 images per
class pass `dsa_cifar100.py:10` (also 20, 30, 40, 50).
Expected: a ConvNet reaches 13.9 / 32.3 % with 1 / 10 images per class.
Measured: not yet: the data was not at hand.

Run: python main.py --config=configs/dsa_cifar100.py --workdir=runs/dsa_cifar100 \
    --config.dataset.data_dir=DIR
"""

from ml_collections import ConfigDict

from configs import _matching, dc_cifar100


def get_config(images_per_class: str = "1") -> ConfigDict:
    """The published settings for so many images per class."""
    return _matching.with_augmentation(dc_cifar100.get_config(images_per_class), flip=True)
