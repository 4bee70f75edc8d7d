r"""DSA (gradient matching, augmented) on Fashion-MNIST: one learned image per class.

Setting: Zhao and Bilen, ICML 2021 (arXiv 2102.08259), as its code does. For 10 images per
class pass `dsa_fashion_mnist.py:10` (also 20, 30, 40, 50).
Expected: a ConvNet reaches 70.6 / 84.6 / 88.7 % with 1 / 10 / 50 images per class.
Measured: not yet.

Run: python main.py --config=configs/dsa_fashion_mnist.py --workdir=runs/dsa_fashion_mnist \
    --config.dataset.data_dir=DIR
"""

from ml_collections import ConfigDict

from configs import _matching, dc_fashion_mnist


def get_config(images_per_class: str = "1") -> ConfigDict:
    """The published settings for so many images per class."""
    return _matching.with_augmentation(dc_fashion_mnist.get_config(images_per_class), flip=True)
