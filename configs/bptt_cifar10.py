r"""BPTT on CIFAR-10: ten images for networks, by differentiating their training.

Setting: after Feng, Vedantam and Kempe, ICLR 2024 (arXiv 2311.07025), with networks of width 64
without normalisation from a pool. Best begun from a set of FRePo, see `support.init`.

Expected: 53.2 / 69.4 / 75.3 % by a ConvNet with 1 / 10 / 50 images per class.
Measured: JPEG copy, network (width 128) 46.25 ± 1.24 % at step 400; 0.67 core hours (Xeon).

Run: python main.py --config=configs/bptt_cifar10.py --workdir=runs/bptt_cifar10 \
    --config.dataset.data_dir=DIR --config.support.init=FILE
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The default with what differs."""
    config = default.get_config()
    config.algorithm = "bptt"
    config.dataset.name = "cifar10"
    config.preprocess = "zca_center"
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 0.003
    config.optimizer.schedule = "cosine_tenth"
    config.batch_size = 256
    config.num_steps = 600
    config.eval.steps = (0, 200, 400)
    config.eval.networks = ("convnet_plain:3",)
    return config
