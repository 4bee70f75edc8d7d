"""The derivatives of the deviations, found in few passes, against one pass for each."""

import numpy as np
import pytest

from kip_flax import architectures as arch
from kip_flax.kernels import KernelOptions
from kip_flax.kernels.cpu import pairs, reach
from kip_flax.kernels.plan import make_plan

SPECS = {
    "convnet, odd sizes": (arch.convnet(2), (11, 9, 2)),
    "convnet": (arch.convnet(3), (16, 16, 1)),
    "no pools": (arch.conv(3), (7, 8, 1)),
    "pools of 3, windows of 5 and 1": (
        (
            *(arch.Conv(5), arch.Relu(), arch.AvgPool(3), arch.Conv(1), arch.Relu(), arch.Conv(3)),
            *(arch.Relu(), arch.Flatten(), arch.Dense()),
        ),
        (13, 10, 1),
    ),
    "strides": (
        (
            *(arch.Conv(3, 2), arch.Relu(), arch.Conv(3), arch.Relu(), arch.AvgPool()),
            *(arch.Conv(3), arch.Relu(), arch.GlobalAvgPool(), arch.Dense()),
        ),
        (12, 13, 1),
    ),
    "a pool first": (
        (arch.AvgPool(), arch.Conv(), arch.Relu(), arch.Flatten(), arch.Dense()),
        (8, 6, 3),
    ),
}


def pattern_of(spec, shape):
    plan = make_plan(KernelOptions(spec), shape)
    return plan, reach.make_reach(plan, shape[-1])


@pytest.mark.parametrize("name", SPECS)
def test_few_passes_find_every_derivative(name):
    spec, shape = SPECS[name]
    plan, pattern = pattern_of(spec, shape)
    programs = pairs.make_programs(plan, shape[-1], tangent=True)
    image = np.random.default_rng(0).normal(size=(1, np.prod(shape)))
    variances = pairs.variances(programs, image)[0]

    def derivatives(cotangents):
        of_image = (np.repeat(a, len(cotangents), axis=0) for a in (image, variances))
        return pairs.variances_gradient(programs, *of_image, cotangents, np.zeros(len(cotangents)))

    expected = derivatives(np.eye(variances.shape[1]))
    found = np.zeros_like(expected)
    passes = derivatives(reach.seeds(pattern))
    found[pattern.maps, pattern.numbers] = reach.entries(pattern, passes)
    np.testing.assert_allclose(found, expected, atol=1e-14 * np.abs(expected).max())
    assert np.all(np.diff(pattern.maps) >= 0)
    assert pattern.starts[-1] == len(pattern.numbers)
    assert len(passes) < variances.shape[1]


def test_passes_do_not_grow_with_the_image():
    small, large = (pattern_of(arch.convnet(3), (side, side, 3))[1] for side in (32, 48))
    assert len(small.pass_of) == 2368
    assert small.passes == large.passes == 3**2 + 5**2 + 5**2 + 5**2
