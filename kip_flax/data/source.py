"""Records of a data set's module: the images and labels that it reads, and facts about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

Part = tuple[np.ndarray, np.ndarray]  # images (n, H, W, C), uint8, and labels (n,)


class Source(NamedTuple):
    """Images and labels as they are stored, not yet checked.

    Attributes:
        paths: of the training part and the test part, for messages.
        train, test: images and labels; `test` is None if there is no test part.
        class_names: one name per class.
    """

    paths: tuple[Path, Path]
    train: Part
    test: Part | None
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """Facts about a data set that are known without reading it.

    Attributes:
        field_name: its name in the field's evaluators, such as CIFAR10; '' if they lack it.
        field_moments: mean and standard deviation of each channel of pixels in [0, 1] by which the
            evaluators normalise; None if they lack the data set.
        preprocess_by: layout (see `export.layouts`) -> the preprocessing of its makers, where they
            deviate from their usual one.
        mirrorable: whether an image keeps its class when left and right are swapped; None: not
            known, and assumed for colour images only.
    """

    field_name: str = ""
    field_moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    preprocess_by: Mapping[str, str] = field(default_factory=dict)
    mirrorable: bool | None = None

    def may_be_mirrored(self, channels: int) -> bool:
        """`mirrorable`; if that is None, whether images of `channels` channels have colours."""
        return channels == 3 if self.mirrorable is None else self.mirrorable
