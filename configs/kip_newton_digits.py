r"""KIP on the embedded digits by Gauss-Newton steps: ten images, labels solved for.

Setting: as `kip_digits`, but nearly all training images are the targets of every step: 200 a step
give 95.5 % at step 60, 500 give 95.8 %.

Expected: nothing is published for this data.
Measured: 86.35 % natural, labels solved for; 95.26 / 97.21 / 96.94 % at steps 5 / 10 / 20.
With support.learn_labels=False 58.50 %, then 92.48 / 93.31 / 93.31 %.

Run: python main.py --config=configs/kip_newton_digits.py --workdir=runs/kip_newton_digits
"""

from ml_collections import ConfigDict

from configs import kip_digits


def get_config() -> ConfigDict:
    """`kip_digits` with what differs."""
    config = kip_digits.get_config()
    config.algorithm = "kip_newton"
    config.batch_size = 1400
    config.num_steps = 20
    config.eval.steps = (0, 5, 10)
    return config
