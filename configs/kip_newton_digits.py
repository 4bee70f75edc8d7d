r"""KIP on the embedded digits by Gauss-Newton steps: ten images, labels solved for.

Setting: as `kip_digits`, with all training images as the targets of every step.

Expected: nothing is published for this data.
Measured: not yet.

Run: python main.py --config=configs/kip_newton_digits.py --workdir=runs/kip_newton_digits
"""

from ml_collections import ConfigDict

from configs import kip_digits


def get_config() -> ConfigDict:
    """`kip_digits` with what differs."""
    config = kip_digits.get_config()
    config.algorithm = "kip_newton"
    return config
