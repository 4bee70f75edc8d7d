r"""DC (gradient matching) on CIFAR-10: one learned image per class.

Setting: Zhao, Mopuri, Bilen, ICLR 2021 (arXiv 2006.05929), as its code does. For 10 images per
class pass `dc_cifar10.py:10` (also 20, 30, 40, 50).
Expected: a ConvNet reaches 28.3 / 44.9 / 53.9 % with 1 / 10 / 50 images per class.
Measured: JPEG copy, network 28.95 ± 0.68 %, --config.batch_size=320; 0.46 core hours (Xeon).

Run: python main.py --config=configs/dc_cifar10.py --workdir=runs/dc_cifar10 \
    --config.dataset.data_dir=DIR
"""

from ml_collections import ConfigDict

from configs import _matching


def get_config(images_per_class: str = "1") -> ConfigDict:
    """The published settings for so many images per class."""
    return _matching.get_config("cifar10", 10, images_per_class)
