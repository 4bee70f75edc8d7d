r"""BPTT on Fashion-MNIST: ten images for networks, by differentiating their training.

Setting: as `bptt_mnist`; networks train with flips and moves, as `auto` trains them on clothes.
For 10 images per class `bptt_fashion_mnist.py:10`. Best begun from FRePo, see `support.init`.
Expected: no figure of Fashion-MNIST is published.
Measured: network (width 128) 73.58 ± 0.63 % at step 400, FRePo's 69.98; 0.59 core h (Xeon).
With `bptt.width=128` at the end 74.02 ± 0.14 %. 100 images in two parts: 84.55 ± 0.16 %.

Run: python main.py --config=configs/bptt_fashion_mnist.py --workdir=runs/bptt_fashion_mnist \
    --config.dataset.data_dir=DIR --config.support.init=FILE
"""

from ml_collections import ConfigDict

from configs import bptt_cifar10


def get_config(images_per_class: str = "1") -> ConfigDict:
    """`bptt_cifar10` with what differs."""
    config = bptt_cifar10.get_config(images_per_class)
    config.dataset.name = "fashion_mnist"
    config.preprocess = "standard"
    config.kernel.mirrored = False  # Three pools of 28 columns drop one.
    config.optimizer.learning_rate = 0.01
    return config
