r"""RFAD (random feature approximation) on scikit-learn's 8x8 digits: ten images, labels learned.

Setting: Loo et al., NeurIPS 2022 (arXiv 2210.12067), made small: ConvNet of depth 2 without a
prepended layer, 8 networks of width 256 and 500 targets a step, the squared error, AdaBelief. Its
rate is ten times the published one, as there are few steps.

Expected: no published figure.
Measured: 53.76 % natural; 83.01 / 88.02 / 92.20 / 93.31 % at steps 10 / 30 / 100 / 200 by the
estimated kernel (NNGP), and 93.31 % by the tangent kernel (--mode=evaluate
--config.kernel.kind=ntk). 11 minutes on two cores (Intel Xeon) that did much other work.

Run: python main.py --config=configs/rfad_digits.py --workdir=runs/rfad_digits
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The default with what differs."""
    config = default.get_config()
    config.algorithm = "rfad"
    config.kernel.architecture = "convnet_plain"
    config.kernel.depth = 2
    config.kernel.kind = "nngp"
    config.support.size = 10
    config.rfad.learning_rate = 1e-2
    config.rfad.transform_rate = 5e-4
    config.batch_size = 500
    config.num_steps = 200
    config.reg = 5e-3
    config.eval.steps = (0, 10, 30, 100)
    config.eval.networks = ("convnet_plain:2",)
    return config
