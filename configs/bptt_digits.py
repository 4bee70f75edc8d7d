r"""BPTT on the embedded digits: ten images for networks, by differentiating their training.

Setting: after Feng, Vedantam and Kempe, ICLR 2024 (arXiv 2311.07025), with a ConvNet of two blocks
of width 32 and a pool of networks.

Expected: no figure is published.
Measured: 58.50 -> 92.76 % by the kernel; `convnet_plain:2` of width 128 by the recipe 'auto'
92.81 +- 0.67 % (five networks, all test images), where FRePo has 90.64. 94 s with the networks, on
two cores (Intel Xeon) that did other work.

Run: python main.py --config=configs/bptt_digits.py --workdir=runs/bptt_digits
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The default with what differs."""
    config = default.get_config()
    config.algorithm = "bptt"
    config.kernel.depth = 2
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 0.03
    config.optimizer.schedule = "cosine_tenth"
    config.batch_size = 200
    config.num_steps = 1200
    config.eval.steps = (0, 400, 800)
    config.eval.networks = ("convnet_plain:2",)
    config.bptt.network = "convnet_plain:2"
    config.bptt.width = 32
    config.bptt.augment = "scale,rotate"
    config.bptt.augment_draw = "one"
    return config
