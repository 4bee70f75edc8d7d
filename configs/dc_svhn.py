r"""DC (gradient matching) on SVHN: one learned image per class.

Setting: Zhao, Mopuri, Bilen, ICLR 2021 (arXiv 2006.05929), as its code does. For 10 images per
class pass `dc_svhn.py:10` (also 20, 30, 40, 50).
Expected: a ConvNet reaches 31.2 / 76.1 / 82.3 % with 1 / 10 / 50 images per class.
Measured: not yet: the data was not at hand.

Run: python main.py --config=configs/dc_svhn.py --workdir=runs/dc_svhn \
    --config.dataset.data_dir=DIR
"""

from ml_collections import ConfigDict

from configs import _matching


def get_config(images_per_class: str = "1") -> ConfigDict:
    """The published settings for so many images per class."""
    return _matching.get_config("svhn", 10, images_per_class)
