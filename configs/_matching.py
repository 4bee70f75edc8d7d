"""What the experiments of DC and DSA share: the settings of VICO-UoE/DatasetCondensation."""

from ml_collections import ConfigDict

from configs import default
from kip_flax.algorithms import _gradient_matching as gradient_matching
from kip_flax.data import augment


def get_config(dataset: str, classes: int, images_per_class: str) -> ConfigDict:
    """DC as published: images from noise, 256 real ones per class, 1,000 networks.

    Args:
        dataset: name of the data set.
        classes: how many it has.
        images_per_class: '1', '10', '20', '30', '40' or '50', which decides the loops.

    Raises:
        ValueError: no loops are published for so many images per class.
    """
    loops = {str(count): found for count, found in gradient_matching.LOOPS.items()}
    if images_per_class not in loops:
        raise ValueError(
            f"{images_per_class} images per class have no published loops: write one of "
            f"{', '.join(loops)} after the colon, or set config.support.size, config.num_steps and "
            f"config.matching."
        )
    outer, inner = loops[images_per_class]
    config = default.get_config()
    config.algorithm = "dc"
    config.dataset.name = dataset
    config.preprocess = "standard"
    config.support.size = classes * int(images_per_class)
    config.support.init = "noise"
    config.support.learn_labels = False
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.1
    config.optimizer.momentum = 0.5
    config.batch_size = classes * 256
    config.num_steps = 1000 * outer
    config.eval.networks = ("convnet_in",)
    config.matching.outer_loops, config.matching.inner_loops = outer, inner
    return config


def with_augmentation(config: ConfigDict, flip: bool) -> ConfigDict:
    """DSA instead: images from real ones, six augmentations; digits are not flipped."""
    config.algorithm = "dsa"
    config.support.init = "real"
    names = [name for name in augment.DSA_AUGMENTS if flip or name != "flip"]
    config.matching.augment = ",".join(names)
    return config
