"""Every architecture, size, channel count, parameterisation and `get`: more than an hour."""

import itertools

import pytest
from kernel_checks import check, image_sets

from kip_flax import architectures as arch
from kip_flax import kernels

DEPTHS = {
    "fc": (1, 3),
    "conv": (3,),
    "convnet": (3,),
    "convnet_plain": (3,),
    "myrtle": (5, 7, 10),
}


def test_every_architecture_is_covered():
    assert set(DEPTHS) == set(arch.ARCHITECTURES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "channels", "parameterization", "get"),
    list(itertools.product((8, 28, 32), (1, 3), kernels.PARAMETERIZATIONS, kernels.GETS)),
)
@pytest.mark.parametrize(
    ("name", "depth"), [(name, depth) for name, depths in DEPTHS.items() for depth in depths]
)
@pytest.mark.parametrize("implementation", ["cpu", "xla"])
def test_against_neural_tangents(
    implementation, name, depth, size, channels, parameterization, get
):
    x1, x2 = image_sets(size, channels, ("same", "1e-3", "ordinary"))
    # The second image, a picture on its background, meets all three as well where that is cheap.
    rows = 2 if size == 8 else 1
    spec = arch.build(name, depth)
    check(implementation, spec, x1[:rows], x2, parameterization=parameterization, get=get)
