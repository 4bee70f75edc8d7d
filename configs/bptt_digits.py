"""BPTT on the embedded digits: ten images for networks, by differentiating their training.

Setting: after Feng, Vedantam, Kempe, ICLR 2024 (arXiv 2311.07025); ConvNet-2 of width 32, a pool.
Expected: no figure is published.
Measured: kernel 58.50 -> 92.76 %, network (width 128) 92.81 ± 0.67 %; 94 s, busy Xeon.

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
