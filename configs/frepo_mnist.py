r"""FRePo on MNIST: ten images for networks.

Setting: Zhou et al., NeurIPS 2022 (arXiv 2206.00719), width 64 without normalisation. For 10
images per class pass `frepo_mnist.py:10`; `:published` as of `frepo_cifar10`.
Expected: 93.0 / 98.6 % by a ConvNet with 1 / 10 images per class, 500,000 steps.
Measured: kernel 90.21 %, network (width 128) 89.91 ± 0.90 % in 2,000 steps; 0.17 core h (Xeon).
100 images: kernel 95.45 %, network 96.49 ± 0.14 % in 2,000 steps; 0.30 core hours.

Run: python main.py --config=configs/frepo_mnist.py --workdir=runs/frepo_mnist \
    --config.dataset.data_dir=DIR
"""

from ml_collections import ConfigDict

from configs import _for_networks, frepo_cifar10


def get_config(setting: str = "1") -> ConfigDict:
    """`frepo_cifar10` with what differs."""
    config = frepo_cifar10.get_config(setting)
    config.dataset.name = "mnist"
    config.preprocess = "standard"
    config.frepo.flip = False
    if _for_networks.are_ten(setting, "published"):
        config.num_steps = 2000
    return config
