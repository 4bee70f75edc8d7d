"""Every architecture with every pair of size, channels, parameterisation and `get`: an hour."""

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


SETTINGS = (8, 28, 32), (1, 3), kernels.PARAMETERIZATIONS, kernels.GETS


def half():
    """Half of the product of the settings: those whose places in `SETTINGS` have an even sum."""
    for places in itertools.product(*(range(len(values)) for values in SETTINGS)):
        if sum(places) % 2 == 0:
            yield tuple(values[place] for values, place in zip(SETTINGS, places, strict=True))


def test_every_architecture_is_covered():
    assert set(DEPTHS) == set(arch.ARCHITECTURES)


def test_every_pair_of_settings_is_covered():
    for one, other in itertools.combinations(range(len(SETTINGS)), 2):
        found = {(case[one], case[other]) for case in half()}
        assert found == set(itertools.product(SETTINGS[one], SETTINGS[other]))


@pytest.mark.slow
@pytest.mark.parametrize(("size", "channels", "parameterization", "get"), list(half()))
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
