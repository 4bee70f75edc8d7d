r"""KIP on CIFAR-100: one image per class, labels learned.

Setting: Nguyen et al., NeurIPS 2021 (arXiv 2107.13034): ConvNet with a prepended layer, ZCA.
Expected: 34.9 % by the kernel, the best published variant: long runs, without augmentation.
Measured: not yet: the data was not at hand.

Run: python main.py --config=configs/kip_cifar100.py --workdir=runs/kip_cifar100 \
    --config.dataset.data_dir=DIR
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The default with what differs."""
    config = default.get_config()
    config.dataset.name = "cifar100"
    config.preprocess = "zca_normalize"
    config.support.size = 100
    config.optimizer.learning_rate = 0.04
    config.batch_size = 1000
    config.num_steps = 1000
    config.checkpoint.every_steps = 20
    return config
