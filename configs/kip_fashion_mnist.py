r"""KIP on Fashion-MNIST: ten images, labels learned.

Setting: Nguyen et al., NeurIPS 2021 (arXiv 2107.13034): ConvNet with a prepended layer.
Expected: 82.9 % by the kernel, the best published variant: long runs, without augmentation.
Measured: not yet.

Run: python main.py --config=configs/kip_fashion_mnist.py --workdir=runs/kip_fashion_mnist \
    --config.dataset.data_dir=DIR
"""

from ml_collections import ConfigDict

from configs import kip_mnist


def get_config() -> ConfigDict:
    """`kip_mnist` with what differs."""
    config = kip_mnist.get_config()
    config.dataset.name = "fashion_mnist"
    return config
