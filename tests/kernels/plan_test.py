"""Bands against brute force: which pixel pairs can the kernel's value depend on?"""

import jax
import numpy as np
import pytest

from kip_flax import architectures as arch
from kip_flax import kernels
from kip_flax.kernels.plan import LinearOp, make_plan, variance_plan
from kip_flax.runtime.errors import UserError

pytestmark = pytest.mark.usefixtures("compiled_kernel")


def read_offsets(spec, height, width):
    """Largest |row offset| and |column offset| that are read after each pool, first level first.

    Walks backwards over one axis at a time (every layer treats rows and columns alike) with a
    boolean matrix: `read[h, h']` says whether the covariance of pixels h and h' is needed.
    """
    sizes = arch.spatial_sizes(spec, height, width)
    reaches = []
    for axis in (0, 1):
        found, read = [], None
        for layer, size in reversed(list(zip(spec, sizes, strict=True))):
            n = size[axis]
            if isinstance(layer, arch.Flatten):
                read = np.eye(n, dtype=bool)
            elif isinstance(layer, arch.GlobalAvgPool):
                read = np.ones((n, n), bool)
            elif isinstance(layer, arch.AvgPool):
                found.append(reach(read))
                before = np.zeros((n, n), bool)
                for i, j in zip(*np.nonzero(read), strict=True):
                    rows, columns = (slice(p * layer.size, (p + 1) * layer.size) for p in (i, j))
                    before[rows, columns] = True
                read = before
            elif isinstance(layer, arch.Conv):
                if layer.stride > 1:
                    found.append(reach(read))
                before = np.zeros((n, n), bool)
                # 'SAME' padding as Flax and neural_tangents have it.
                padding = max(0, (-(-n // layer.stride) - 1) * layer.stride + layer.size - n)
                for shift in range(layer.size):
                    for i, j in zip(*np.nonzero(read), strict=True):
                        p, q = (o * layer.stride - padding // 2 + shift for o in (i, j))
                        if 0 <= p < n and 0 <= q < n:
                            before[p, q] = True
                read = before
        found.append(reach(read))
        reaches.append(found[::-1])
    return list(zip(*reaches, strict=True))


def reach(read):
    return max(abs(i - j) for i, j in zip(*np.nonzero(read), strict=True))


def random_description(rng):
    """A description of one to three levels, and a size that its pools and strides do not divide."""
    layers, smallest = [], 1
    for _ in range(rng.integers(3)):
        for _ in range(rng.integers(3)):
            layers += [arch.Conv(int(rng.choice([1, 3, 5]))), arch.Relu()]
        if rng.random() < 0.7:
            layers.append(arch.AvgPool(int(rng.choice([2, 3]))))
            smallest *= layers[-1].size
        else:
            stride = int(rng.choice([2, 3]))
            layers += [arch.Conv(int(rng.choice([1, 3, 5])), stride), arch.Relu()]
            smallest *= stride
    layers += [arch.Conv(3), arch.Relu()]
    end = arch.Flatten() if rng.random() < 0.6 else arch.GlobalAvgPool()
    height, width = (int(smallest * rng.integers(1, 4) + rng.integers(smallest)) for _ in range(2))
    return (*layers, end, arch.Dense()), height, width


@pytest.mark.parametrize("seed", range(60))
def test_bands_are_the_offsets_that_are_read(seed):
    spec, height, width = random_description(np.random.default_rng(seed))
    plan = plan_of(spec, height, width)
    assert [level.band for level in plan.levels] == read_offsets(spec, height, width)


@pytest.mark.parametrize(
    ("seed", "implementation"),
    [
        pytest.param(seed, name, marks=() if (seed, name) == (1, "xla") else pytest.mark.slow)
        for seed in range(40)
        for name in ("cpu", "xla")
    ],
)
def test_random_descriptions_give_the_full_kernel(seed, implementation):
    """neural_tangents computes all pixel pairs."""
    rng = np.random.default_rng(100 + seed)
    spec, height, width = random_description(rng)
    channels = int(rng.integers(1, 5))
    x1, x2 = (rng.normal(size=(n, height, width, channels)) for n in (2, 3))
    weights = rng.normal(size=(2, 3))
    options = {"w_std": 1.3, "b_std": 0.2}
    if rng.random() < 0.5:
        options |= {"parameterization": "standard", "width": 16}
    ours = kernels.make_kernel(spec, implementation=implementation, **options)
    theirs = kernels.make_kernel(spec, implementation="neural_tangents", **options)

    def run(kernel):
        k, vjp = jax.vjp(lambda x: kernel(x, x2), x1)
        return k, vjp(weights)[0]

    run = jax.jit(run, static_argnums=0)
    for mine, exact in zip(run(ours), run(theirs), strict=True):
        np.testing.assert_allclose(mine, exact, rtol=1e-9, atol=1e-9 * np.abs(exact).max())


def plan_of(spec, height, width, parameterization="ntk"):
    options = kernels.KernelOptions(spec, parameterization=parameterization, width=64)
    return make_plan(options, (height, width, 3))


def test_convnet_needs_a_sixth_of_the_pixel_pairs():
    """At 32x32 |offset| <= 7, so 424^2 of 1024^2: 424 = 32 + 2 * (31 + 30 + ... + 25) an axis."""
    plan = plan_of(arch.convnet(3), 32, 32)
    assert [level.band for level in plan.levels] == [(7, 7), (3, 3), (1, 1), (0, 0)]
    offsets = plan.levels[0].offsets()
    assert np.prod(32 - np.abs(offsets), axis=1).sum() == 424**2


def test_without_pools_only_offset_zero_is_read_and_with_global_pooling_all():
    assert [level.band for level in plan_of(arch.conv(3), 32, 32).levels] == [(0, 0)]
    assert [level.band for level in plan_of(arch.myrtle(5), 9, 12).levels] == [
        (7, 11),  # 9 rows: the second pool drops the last, so row 8 meets no offset 8.
        (3, 5),
        (1, 2),
    ]


def test_the_variances_need_a_thinner_band():
    plan = variance_plan(plan_of(arch.myrtle(5), 32, 32))
    assert [level.band for level in plan.levels] == [(3, 3), (1, 1), (0, 0)]


def test_a_layer_as_numbers():
    """'ntk' and 'standard' at fan-in 27 (3 channels) and 9 * width, and the flattened readout."""
    spec = (arch.Conv(), arch.Relu(), arch.Conv(), arch.Relu(), arch.Flatten(), arch.Dense())
    plan = plan_of(spec, 4, 5, "standard")
    affines = [op for op in (*plan.levels[0].ops, *plan.head) if isinstance(op, LinearOp)]
    for op, fan_in in zip(affines, (27, 9 * 64, 64 * 20), strict=True):
        mean = 0.37  # The tangent kernel of a layer's own weights and bias: fan_in * mean + 1.
        covariance = op.weight * mean + op.bias
        assert (op.weight, op.bias) == pytest.approx((2, 0.01))
        assert op.alpha * covariance + op.beta == pytest.approx(fan_in * mean + 1)
    assert plan.levels[0].margin == 2
    assert all(
        (op.alpha, op.beta) == (1, 0) for op in plan_of(spec, 4, 5).head if op != arch.Relu()
    )


def test_a_fully_connected_network_has_no_planes():
    plan = plan_of(arch.fc(2), 8, 8)
    assert not plan.convolutional
    assert len(plan.head) == 5
    assert plan_of(arch.conv(1), 8, 8).convolutional
    global_pool_only = (arch.GlobalAvgPool(), arch.Dense())
    assert plan_of(global_pool_only, 8, 8).convolutional


@pytest.mark.parametrize("layer", [arch.Conv(), arch.AvgPool()])
def test_nothing_but_dense_layers_and_relus_follows_the_end(layer):
    with pytest.raises(UserError, match="a convolution or a pool after Flatten"):
        plan_of((arch.Conv(), arch.Relu(), arch.Flatten(), layer, arch.Dense()), 4, 4)
