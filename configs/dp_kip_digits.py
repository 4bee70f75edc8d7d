"""DP-KIP on the embedded digits: ten images with differential privacy, epsilon 10, in a minute.

Setting: Vinaroz and Park (arXiv 2301.13389), with the exact ConvNet kernel of `kip_digits`. With
1,438 training images privacy is dear: see `dp_kip_mnist` for what more of them are worth.
Expected: no published figure.
Measured: not yet.

Run: python main.py --config=configs/dp_kip_digits.py --workdir=runs/dp_kip_digits
"""

from ml_collections import ConfigDict

from configs import dp_kip_mnist


def get_config() -> ConfigDict:
    """`dp_kip_mnist` with what differs."""
    config = dp_kip_mnist.get_config()
    config.dataset.name = "digits"
    config.kernel.depth = 2
    config.batch_size = 100
    config.num_steps = 240
    config.privacy.delta = 1e-4
    config.privacy.frequencies = 0
    config.eval.steps = (0, 60, 120)
    return config
