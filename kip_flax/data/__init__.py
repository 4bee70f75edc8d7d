"""Labelled image sets: reading, checks, draws and augmentations."""

from kip_flax.data.datasets import DATASETS, Dataset, hold_out, load_dataset, of_classes
from kip_flax.data.sampling import balanced_batch, balanced_draw, evenly, test_subset
from kip_flax.data.targets import Targets, centered_one_hot

__all__ = [
    "DATASETS",
    "Dataset",
    "Targets",
    "balanced_batch",
    "balanced_draw",
    "centered_one_hot",
    "evenly",
    "hold_out",
    "load_dataset",
    "of_classes",
    "test_subset",
]
