"""FRePo on the embedded digits: ten images for networks, in seconds.

Setting: Zhou et al., NeurIPS 2022 (arXiv 2206.00719), ConvNet-2 of width 32 without normalisation.
Expected: no figure is published.
Measured: kernel 58.50 -> 91.64 %, network (width 128) 90.64 ± 0.85 %; 29 s, busy Xeon.

Run: python main.py --config=configs/frepo_digits.py --workdir=runs/frepo_digits
"""

from ml_collections import ConfigDict

from configs import frepo_cifar10


def get_config() -> ConfigDict:
    """`frepo_cifar10` with what differs."""
    config = frepo_cifar10.get_config()
    config.dataset.name = "digits"
    config.preprocess = "standard"
    config.kernel.depth = 2
    config.batch_size = 200
    config.num_steps = 600
    config.eval.steps = (0, 200)
    config.eval.networks = ("convnet_plain:2",)
    config.frepo.network = "convnet_plain:2"
    config.frepo.width = 32
    config.frepo.flip = False
    return config
