r"""RFAD (random feature approximation) on CIFAR-10: ten images for networks, in minutes.

Setting: as `rfad_mnist`, with RFAD's ZCA. `:many` makes 100 images for both.
Expected: 53.6 % by networks of width 1,024.
Measured: JPEG copy, networks (width 128) 43.17 ± 0.95 % of test images, the NNGP kernel 51.22 %,
after 500 steps; 0.20 core hours (EPYC). 100 images: networks 61.85 ± 0.25 %, kernel 66.61; 0.75
core hours. 500 images, `num_steps=1500`: networks 68.25 ± 0.44 %, kernel 68.67; 1.7 core hours.

Run: python main.py --config=configs/rfad_cifar10.py --workdir=runs/rfad_cifar10 \
    --config.dataset.data_dir=DIR
"""

from ml_collections import ConfigDict

from configs import rfad_mnist


def get_config(budget: str = "minutes") -> ConfigDict:
    """`rfad_mnist` with what differs, and its budgets."""
    config = rfad_mnist.get_config(budget)
    config.dataset.name = "cifar10"
    config.preprocess = "zca"
    if budget == "many":
        config.augment = "flip"
    return config
