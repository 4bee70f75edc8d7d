"""KIP on the embedded digits by Gauss-Newton steps: ten images, labels solved for.

Setting: as `kip_digits`, 200 targets a step (docs/method.md).
Expected: no figure is published.
Measured: 86.35 -> 96.66 %; with support.learn_labels=False 58.50 -> 93.31 %. 60 steps.

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
