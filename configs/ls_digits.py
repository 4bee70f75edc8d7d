"""Label Solve on scikit-learn's 8x8 digits: ten real images with the best labels for them.

Setting: that of Nguyen et al., ICLR 2021 (arXiv 2011.00050), section 3.2, made small.

Expected: no published figure.
Measured: 58.50 % with the natural labels, 86.35 % with the solved ones, from support.init=herding
86.07 and 89.97; about a minute on two cores, most of it compiling.

Run: python main.py --config=configs/ls_digits.py --workdir=runs/ls_digits
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The default with what differs."""
    config = default.get_config()
    config.algorithm = "ls"
    config.kernel.architecture = "convnet"
    config.kernel.depth = 2
    config.support.size = 10
    return config
