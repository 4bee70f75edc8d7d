"""Dataset distillation by exact kernels of infinitely wide networks, and for networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kip_flax.modes.train.distil import distill as distill

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Loads `distill` when it is asked for: importing the package alone loads nothing."""
    if name != "distill":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kip_flax.modes.train.distil import distill

    return distill


def __dir__() -> list[str]:
    return sorted({*globals(), "distill"})
