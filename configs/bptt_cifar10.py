r"""BPTT on CIFAR-10: ten images for networks, by differentiating their training.

Setting: after Feng, Vedantam and Kempe, ICLR 2024 (arXiv 2311.07025), width 64, a pool. For 10
images per class, `bptt_cifar10.py:10`, width 32. Best begun from FRePo, see `support.init`.
Expected: 53.2 / 69.4 / 75.3 % by a ConvNet with 1 / 10 / 50 images per class.
Measured: JPEG copy, network (width 128) 46.25 ± 1.24 % at step 400, FRePo's 42.45;
0.67 core hours (Xeon) beside FRePo's. 100 images: 61.36 ± 0.19, FRePo's 56.84; 1.2 (EPYC).

Run: python main.py --config=configs/bptt_cifar10.py --workdir=runs/bptt_cifar10 \
    --config.dataset.data_dir=DIR --config.support.init=FILE
"""

from ml_collections import ConfigDict

from configs import _for_networks, default


def get_config(images_per_class: str = "1") -> ConfigDict:
    """The default with what differs."""
    config = default.get_config()
    config.algorithm = "bptt"
    config.dataset.name = "cifar10"
    config.preprocess = "zca_center"
    config.kernel.mirrored = True  # `bptt.augment` mirrors.
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 0.003
    config.optimizer.schedule = "cosine_tenth"
    config.batch_size = 256
    config.num_steps = 600
    config.eval.steps = (0, 200, 400)
    config.eval.networks = ("convnet_plain:3",)
    if _for_networks.are_ten(images_per_class):
        config.support.size, config.num_steps, config.eval.steps = 100, 300, (0,)
        config.batch_size, config.bptt.width, config.bptt.life = 1024, 32, 1000
    return config
