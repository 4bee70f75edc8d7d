r"""DC (gradient matching) on Fashion-MNIST: one learned image per class.

Setting: Zhao, Mopuri, Bilen, ICLR 2021 (arXiv 2006.05929), with what its published code takes:
ConvNet-3 of width 128 with instance normalisation, images from noise, gradient descent 0.1 with
momentum 0.5, 256 real images per class, 1,000 networks.

`dc_fashion_mnist.py:10` is for 10 images per class (also 20, 30, 40, 50), with the published loops.

Expected: a ConvNet trained on the set reaches 70.5 / 82.3 / 83.6 % with 1 / 10 / 50 images per
class. The kernel, by which a run is measured, has no published figure.
Measured: not yet.

Run: python main.py --config=configs/dc_fashion_mnist.py --workdir=runs/dc_fashion_mnist \
    --config.dataset.data_dir=DIR
"""

from ml_collections import ConfigDict

from configs import _matching


def get_config(images_per_class: str = "1") -> ConfigDict:
    """The published settings for so many images per class."""
    return _matching.get_config("fashion_mnist", 10, images_per_class)
