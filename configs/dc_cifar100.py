r"""DC (gradient matching) on CIFAR-100: one learned image per class.

Setting: Zhao, Mopuri, Bilen, ICLR 2021 (arXiv 2006.05929), as its code does. For 10 images per
class pass `dc_cifar100.py:10` (also 20, 30, 40, 50).
Expected: a ConvNet reaches 12.8 / 25.2 % with 1 / 10 images per class.
Measured: not yet: the data was not at hand.

Run: python main.py --config=configs/dc_cifar100.py --workdir=runs/dc_cifar100 \
    --config.dataset.data_dir=DIR
"""

from ml_collections import ConfigDict

from configs import _matching


def get_config(images_per_class: str = "1") -> ConfigDict:
    """The published settings for so many images per class."""
    return _matching.get_config("cifar100", 100, images_per_class)
