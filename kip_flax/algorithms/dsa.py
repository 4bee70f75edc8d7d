"""DSA: DC with one differentiable augmentation, the same for real and synthetic images."""

from ml_collections import ConfigDict

from kip_flax.algorithms import dc
from kip_flax.algorithms.dc import check_data, init, make_step
from kip_flax.runtime.errors import UserError

__all__ = ["check", "check_data", "init", "make_step"]


def check(config: ConfigDict) -> None:
    """Raises UserError if nothing is augmented, or labels are to be learned."""
    dc.check_fixed(config)
    if not config.matching.augment:
        raise UserError(
            "matching.augment is empty: DSA draws from it: name for example 'color,crop,cutout,"
            "scale,rotate', or take algorithm='dc'."
        )
