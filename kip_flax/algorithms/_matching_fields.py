"""The configuration's fields of gradient matching (DC, DSA), and what they may say."""

from collections.abc import Sequence
from typing import Any

from kip_flax.data import augment

FIELDS: dict[str, type] = {
    "matching.network": str,
    "matching.outer_loops": int,
    "matching.inner_loops": int,
    "matching.learning_rate": float,
    "matching.batch_train": int,
    "matching.augment": str,
}

# Those of the zoo without running averages, which a few images of one class would ruin.
CHOICES: dict[str, Sequence[str]] = {
    "matching.network": (
        *("mlp", "convnet_in", "convnet2_in", "lenet", "alexnet", "vgg11_in", "resnet18_in"),
    ),
}

MINIMA: dict[str, int] = {
    "matching.outer_loops": 1,
    "matching.inner_loops": 0,
    "matching.batch_train": 1,
}

ABOVE_ZERO = ("matching.learning_rate",)
ALGORITHMS = ("dc", "dsa")  # That read these fields.


def check(fields: dict[str, Any]) -> None:
    """Raises UserError if `matching.augment` of the `fields`, by dotted name, is none."""
    augment.parse(fields["matching.augment"])
