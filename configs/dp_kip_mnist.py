r"""DP-KIP on MNIST: ten images with differential privacy, epsilon 10.

Setting: Vinaroz and Park (arXiv 2301.13389), with the exact ConvNet kernel of `kip_mnist`, large
batches and few steps. `--config.privacy.epsilon=1` for more privacy.
Expected: no figure was read at the source.
Measured: not yet.

Run: python main.py --config=configs/dp_kip_mnist.py --workdir=runs/dp_kip_mnist \
    --config.dataset.data_dir=DIR
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The default with what differs."""
    config = default.get_config()
    config.algorithm = "dp_kip"
    config.dataset.name = "mnist"
    config.preprocess = "centred"  # Constants: nothing is fitted on private images.
    config.support.size = 10
    config.support.init = "noise"
    config.batch_size = 250
    config.num_steps = 500
    config.privacy.frequencies = 14
    config.privacy.clip = 0.03
    config.privacy.start_std = 0.5
    config.optimizer.learning_rate = 0.1
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 10
    config.checkpoint.every_steps = 20
    config.eval.steps = (0, 100, 200, 300, 400)
    config.report.num_train = 0  # It would show training images.
    return config
