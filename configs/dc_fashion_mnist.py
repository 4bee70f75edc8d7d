r"""DC (gradient matching) on Fashion-MNIST: one learned image per class.

Setting: Zhao, Mopuri, Bilen, ICLR 2021 (arXiv 2006.05929), as its code does. For 10 images per
class pass `dc_fashion_mnist.py:10` (also 20, 30, 40, 50).
Expected: a ConvNet reaches 70.5 / 82.3 / 83.6 % with 1 / 10 / 50 images per class.
Measured: not yet.

Run: python main.py --config=configs/dc_fashion_mnist.py --workdir=runs/dc_fashion_mnist \
    --config.dataset.data_dir=DIR
"""

from ml_collections import ConfigDict

from configs import _matching


def get_config(images_per_class: str = "1") -> ConfigDict:
    """The published settings for so many images per class."""
    return _matching.get_config("fashion_mnist", 10, images_per_class)
