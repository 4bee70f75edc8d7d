"""Dataset distillation by exact kernels of infinitely wide networks, and for networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kip_flax.export import Distilled

__version__ = "0.1.0"


def distill(*args: Any, **kwargs: Any) -> Distilled:
    """Distils labelled images, see `kip_flax.modes.train.distil.distill`."""
    from kip_flax.modes.train.distil import distill  # Importing the package alone loads nothing.

    return distill(*args, **kwargs)
