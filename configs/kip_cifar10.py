r"""KIP on CIFAR-10: ten images, labels learned.

Setting: Nguyen et al., NeurIPS 2021 (arXiv 2107.13034): ConvNet with the prepended layer, ZCA,
Adam 0.04. The paper's batches are larger and its runs longer: here 1,000 targets a step.

Expected: 64.7 % on the kernel is reported for one image per class, by the best variant, with
augmentation and long runs (second-hand: check the paper before quoting).
Measured: 13.80 / 29.20 % at steps 0 / 6 on 500 test images of a JPEG copy; 4.2 s a step on two
cores (Intel Xeon), so about 70 minutes for the whole run, which was not made yet.

Run: python main.py --config=configs/kip_cifar10.py --workdir=runs/kip_cifar10 \
    --config.dataset.data_dir=DIR
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The default with what differs."""
    config = default.get_config()
    config.dataset.name = "cifar10"
    config.preprocess = "zca_normalize"
    config.support.size = 10
    config.optimizer.learning_rate = 0.04
    config.batch_size = 1000
    config.num_steps = 1000
    config.checkpoint.every_steps = 20
    return config
