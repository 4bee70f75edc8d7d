r"""KIP on the embedded digits by Gauss-Newton steps: ten images, labels solved for.

Setting: as `kip_digits`, with 200 targets a step. Of held-out images, two seeds each, the errors
after 12,000 to 22,000 targets: 8.7e-3 and 8.7e-3 (200 a step, 60 steps), 9.0e-3 and 8.7e-3 (100),
8.7e-3 and 9.0e-3 (350), 8.8e-3 and 9.1e-3 (550), 9.1e-3 and 9.4e-3 (nearly all).

Expected: nothing is published for this data.
Measured: 86.35 % natural, labels solved for; 94.71 / 95.54 / 96.38 / 96.66 % at steps 10 / 20 / 40
/ 60. With support.learn_labels=False 58.50 %, then 92.76 / 93.31 / 93.04 / 93.31 %.

Run: python main.py --config=configs/kip_newton_digits.py --workdir=runs/kip_newton_digits
"""

from ml_collections import ConfigDict

from configs import kip_digits


def get_config() -> ConfigDict:
    """`kip_digits` with what differs."""
    config = kip_digits.get_config()
    config.algorithm = "kip_newton"
    config.batch_size = 200
    config.num_steps = 60
    config.eval.steps = (0, 5, 10, 20, 40)
    return config
