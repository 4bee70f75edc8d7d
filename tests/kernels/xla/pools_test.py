"""Where pooling adds what a plane holds."""

import pytest

from kip_flax import architectures as arch
from kip_flax.kernels import KernelOptions
from kip_flax.kernels.plan import make_plan
from kip_flax.kernels.xla import pools


@pytest.mark.parametrize("size", [2, 3])
def test_slots_are_where_pooling_puts_pixel_pairs(size):
    spec = (arch.AvgPool(size), arch.Conv(), arch.AvgPool(2), arch.Flatten(), arch.Dense())
    plan = make_plan(KernelOptions(spec), (5 * size + 1, 5 * size + 1, 3))
    reach = plan.levels[1].band[0]
    for (offset, _), (slots, _) in zip(plan.levels[0].offsets(), pools.slots(plan, 0), strict=True):
        for a in range(size):
            row = size * 2 + a  # A pixel of the third window.
            coarse = (row + offset) // size - 2
            assert slots[a] == (coarse + reach + 1 if abs(coarse) <= reach else 0)
