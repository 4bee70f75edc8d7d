"""DC (gradient matching) on scikit-learn's 8x8 digits: one learned image per class.

Setting: Zhao, Mopuri, Bilen, ICLR 2021 (arXiv 2006.05929), with what its published code takes:
ConvNet-2 of width 128 with instance normalisation, images from noise, gradient descent 0.1 with
momentum 0.5, 128 real images per class, 1,000 networks.
There are no more than 139 images of some classes, and 8x8 pixels are too few for three blocks: the
last would normalise over 2x2, and no image learned anything. Two blocks do.

`dc_digits.py:10` is for 10 images per class (also 20, 30, 40, 50), with the published loops.

Expected: no published figure.
Measured: with --config.num_steps=300, 10.31 / 89.14 / 87.74 % on the kernel at steps 0 / 100 / 300,
and 87.56 % by networks trained on the set (docs/rivals.md); 4 minutes on two cores that did other
work as well.

Run: python main.py --config=configs/dc_digits.py --workdir=runs/dc_digits
"""

from ml_collections import ConfigDict

from configs import _matching


def get_config(images_per_class: str = "1") -> ConfigDict:
    """The published settings for so many images per class."""
    config = _matching.get_config("digits", 10, images_per_class)
    config.kernel.depth = 2
    config.batch_size = 10 * 128
    config.matching.network = "convnet2_in"
    config.eval.networks = ("convnet2_in",)
    return config
