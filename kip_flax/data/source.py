"""The images and labels that a data set's module reads, and facts about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

Part = tuple[np.ndarray, np.ndarray]  # images (n, H, W, C), labels (n,)


class Source(NamedTuple):
    """Images and labels as they are stored; whoever asked for them checks them.

    Attributes:
        paths: the training part's and the test part's, for messages.
        train, test: None in the place of a test part that is not there.
        class_names: one name per class.
    """

    paths: tuple[Path, Path]
    train: Part
    test: Part | None
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """What others may ask about a data set without reading it.

    Attributes:
        field_name: what the field's evaluators call it, such as CIFAR10; '' if they do not know it.
        field_moments: mean and standard deviation of each channel of pixels in [0, 1] by which the
            evaluators normalise; None if they do not know it.
        preprocess_by: how the makers of other layouts (see `export.layouts`) preprocess it, where
            it is not as usual.
        mirrorable: whether an image stays one of its class when left and right are swapped; None:
            not known, and supposed of colour images alone.
    """

    field_name: str = ""
    field_moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    preprocess_by: Mapping[str, str] = field(default_factory=dict)
    mirrorable: bool | None = None

    def may_be_mirrored(self, channels: int) -> bool:
        """`mirrorable`; where nothing is said, whether images of so many channels have colours."""
        return channels == 3 if self.mirrorable is None else self.mirrorable
