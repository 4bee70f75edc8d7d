r"""KIP on CIFAR-10 with the Myrtle kernel of depth 5: ten images, labels learned.

Setting: as `kip_cifar10` with Myrtle-5, 200 targets a step and a part of the test set.
Expected: no figure is published.
Measured: not yet.

Run: python main.py --config=configs/kip_cifar10_myrtle.py --workdir=runs/kip_cifar10_myrtle \
    --config.dataset.data_dir=DIR
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The default with what differs."""
    config = default.get_config()
    config.dataset.name = "cifar10"
    config.preprocess = "zca_normalize"
    config.kernel.architecture = "myrtle"
    config.kernel.depth = 5
    config.support.size = 10
    config.optimizer.learning_rate = 0.04
    config.batch_size = 200
    config.num_steps = 500
    config.checkpoint.every_steps = 10
    config.eval.num_test = 1000
    return config
