"""Descriptions against the layer counts of the papers, and the errors of impossible ones."""

import pytest

from kip_flax import architectures as arch
from kip_flax.runtime.errors import UserError


def count(spec, kind):
    return sum(isinstance(layer, kind) for layer in spec)


@pytest.mark.parametrize(
    ("name", "depth", "convs", "pools", "denses", "relus"),
    [
        ("fc", 1, 0, 0, 2, 1),
        ("fc", 3, 0, 0, 4, 3),
        ("conv", 3, 3, 0, 1, 3),
        ("convnet", 3, 4, 3, 1, 4),
        ("convnet_plain", 3, 3, 3, 1, 3),
        ("myrtle", 5, 4, 2, 1, 4),
        ("myrtle", 7, 6, 2, 1, 6),
        ("myrtle", 10, 9, 2, 1, 9),
    ],
)
def test_layers(name, depth, convs, pools, denses, relus):
    spec = arch.build(name, depth)
    assert count(spec, arch.Conv) == convs
    assert count(spec, arch.AvgPool) == pools
    assert count(spec, arch.Dense) == denses
    assert count(spec, arch.Relu) == relus
    assert count(spec, arch.Flatten) + count(spec, arch.GlobalAvgPool) == 1
    assert isinstance(spec[-1], arch.Dense)


def test_convnet_is_written_out():
    pooled = (arch.Conv(3), arch.Relu(), arch.AvgPool(2))
    head = (arch.Flatten(), arch.Dense())
    assert arch.convnet(2) == (arch.Conv(3), arch.Relu(), *pooled, *pooled, *head)
    assert arch.convnet(2, prepend_conv=False) == arch.convnet_plain(2) == (*pooled, *pooled, *head)


def test_myrtle_pools_globally_and_only_between_its_blocks():
    spec = arch.myrtle(7)
    assert spec[-2:] == (arch.GlobalAvgPool(), arch.Dense())
    pools = [i for i, layer in enumerate(spec) if isinstance(layer, arch.AvgPool)]
    convs = [count(spec[a:b], arch.Conv) for a, b in zip([0, *pools], [*pools, None], strict=True)]
    assert convs == [2, 2, 2]  # One more than its block of 1 at the front; then blocks of 2, 2.


def test_spatial_sizes_drop_what_pools_leave_over():
    spec = arch.convnet(3)
    at_pools = [
        size
        for layer, size in zip(spec, arch.spatial_sizes(spec, 28, 31), strict=True)
        if isinstance(layer, arch.AvgPool | arch.Flatten | arch.Dense)
    ]
    assert at_pools == [(28, 31), (14, 15), (7, 7), (3, 3), (1, 1)]


@pytest.mark.parametrize(("height", "width"), [(7, 8), (8, 7), (1, 1)])
def test_images_too_small_for_the_pools(height, width):
    with pytest.raises(UserError, match=f"{height}x{width} pixels are too small for 3 pooling"):
        arch.spatial_sizes(arch.convnet(3), height, width)
    arch.spatial_sizes(arch.convnet(3), 8, 8)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match=r"'resnet'.*fc, conv, convnet, convnet_plain, myrtle"):
        arch.build("resnet", 3)


@pytest.mark.parametrize("name", ["fc", "conv", "convnet", "convnet_plain"])
@pytest.mark.parametrize("depth", [0, -1])
def test_depth_is_at_least_one(name, depth):
    with pytest.raises(UserError, match=f"depth of at least 1, not {depth}"):
        arch.build(name, depth)


def test_myrtle_has_three_depths():
    with pytest.raises(UserError, match="5, 7 or 10, not 6"):
        arch.build("myrtle", 6)
