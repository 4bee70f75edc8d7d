"""Labelled image sets: read, checked, drawn from, augmented."""

from kip_flax.data.datasets import (
    DATASETS,
    Dataset,
    balanced_batch,
    balanced_draw,
    hold_out,
    load_dataset,
)

__all__ = [
    "DATASETS",
    "Dataset",
    "balanced_batch",
    "balanced_draw",
    "hold_out",
    "load_dataset",
]
