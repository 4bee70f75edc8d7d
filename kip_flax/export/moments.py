"""How the field normalises pixels: constants that its evaluators have in their code.

VICO-UoE/DatasetCondensation, `utils.py` (`get_dataset`); MTT and DD-Ranking have the same for
CIFAR. Those of CIFAR are not the deviations of the pixels (0.247, 0.243, 0.262), but what the
evaluators feed their networks with.
"""

import numpy as np

from kip_flax.preprocess import Preprocess

_CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
# Ours: their name, mean and deviation of each channel of pixels in [0, 1].
_FIELD = {
    "mnist": ("MNIST", (0.1307,), (0.3081,)),
    "fashion_mnist": ("FashionMNIST", (0.2861,), (0.3530,)),
    "svhn": ("SVHN", (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "cifar10": ("CIFAR10", *_CIFAR),
    "cifar100": ("CIFAR100", *_CIFAR),
}


def field_name(dataset: str) -> str:
    """What the field's evaluators call a data set: CIFAR10 for cifar10."""
    return _FIELD[dataset][0] if dataset in _FIELD else dataset


def field_moments(dataset: str, fitted: Preprocess) -> Preprocess:
    """The field's normalisation of a data set as a preprocessing, 'standard' with its constants.

    Data sets that the field has no constants for get mean and deviation of `fitted`.
    """
    if dataset not in _FIELD:
        return Preprocess("standard", fitted.mean, fitted.std)
    _, mean, std = _FIELD[dataset]
    return Preprocess("standard", np.asarray(mean, np.float32), np.asarray(std, np.float32))
