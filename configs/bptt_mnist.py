r"""BPTT on MNIST: ten images for networks, by differentiating their training.

Setting: after Feng, Vedantam and Kempe, ICLR 2024 (arXiv 2311.07025), width 64, a pool. For 10
images per class, `bptt_mnist.py:10`, width 32. Best begun from FRePo, see `support.init`.
Expected: no figure of MNIST is published.
Measured: network (width 128) 92.79 ± 0.34 %, FRePo's set 89.91; 0.41 core hours (Xeon).
With `bptt.width=128` at the end 93.22 ± 0.44 %. 100 images in two parts: 98.24 ± 0.04 %.

Run: python main.py --config=configs/bptt_mnist.py --workdir=runs/bptt_mnist \
    --config.dataset.data_dir=DIR --config.support.init=FILE
"""

from ml_collections import ConfigDict

from configs import bptt_cifar10


def get_config(images_per_class: str = "1") -> ConfigDict:
    """`bptt_cifar10` with what differs."""
    config = bptt_cifar10.get_config(images_per_class)
    config.dataset.name = "mnist"
    config.preprocess = "standard"
    config.optimizer.learning_rate = 0.03
    config.kernel.mirrored = False  # As its augmentation.
    config.bptt.augment = "scale,rotate"
    config.bptt.augment_draw = "one"
    return config
