r"""DC (gradient matching) on MNIST: one learned image per class.

Setting: Zhao, Mopuri, Bilen, ICLR 2021 (arXiv 2006.05929), as its code does. For 10 images per
class pass `dc_mnist.py:10` (also 20, 30, 40, 50).
Expected: a ConvNet reaches 91.7 / 97.4 / 98.8 % with 1 / 10 / 50 images per class.
Measured: network 90.67 ± 0.35 %, --config.batch_size=320; 15 minutes on two cores (Xeon).

Run: python main.py --config=configs/dc_mnist.py --workdir=runs/dc_mnist \
    --config.dataset.data_dir=DIR
"""

from ml_collections import ConfigDict

from configs import _matching


def get_config(images_per_class: str = "1") -> ConfigDict:
    """The published settings for so many images per class."""
    return _matching.get_config("mnist", 10, images_per_class)
