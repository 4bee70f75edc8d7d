r"""KIP on MNIST: ten images, labels learned.

Setting: Nguyen et al., NeurIPS 2021 (arXiv 2107.13034): ConvNet with a prepended layer.
Smaller batches, a falling rate and 600 steps in the place of long runs.
Expected: 97.3 % by the kernel, the best published variant: long runs, without augmentation.
Measured: 39.96 -> 93.42 %; 0.60 core hours (EPYC).

Run: python main.py --config=configs/kip_mnist.py --workdir=runs/kip_mnist \
    --config.dataset.data_dir=DIR
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The default with what differs."""
    config = default.get_config()
    config.dataset.name = "mnist"
    config.support.size = 10
    # A rate of 0.04 that falls as a cosine: 0.01, as published, was at 74.5 / 79.6 % on MNIST after
    # 20 / 100 steps of 200 targets and climbing slowly; this is at 86 % after 100 steps of 1,000.
    # In 48 steps of 500 (held-out images, three seeds: results/ablations.md) 0.01 is worse by 8.1
    # points, 0.16 better by 4.7; smaller batches at the same cost are better by 3.0, a constant
    # rate by 2.8, learned labels by 8.5. For little time take these; 600 steps were run with 0.04.
    config.optimizer.learning_rate = 0.04
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 20
    config.batch_size = 1000
    config.num_steps = 600
    config.checkpoint.every_steps = 20
    config.eval.steps = (0, 20, 50, 100, 200, 300, 400, 500)
    return config
