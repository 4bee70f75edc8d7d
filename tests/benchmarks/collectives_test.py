"""What travels between devices, read from compiled programs: no more for more targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from benchmarks.collectives import STEPS, Sizes, collectives
from kip_flax import architectures as arch
from kip_flax.runtime import sharding

S, CLASSES, PIXELS = 10, 3, 4 * 4 * 2
SIZES = Sizes(arch.convnet(1), (4, 4, 2), S, CLASSES)


def compiled(function, mesh, out_specs, *args):
    mapped = jax.shard_map(
        function, mesh=mesh, in_specs=P("data", "support"), out_specs=out_specs, check_vma=False
    )
    return jax.jit(mapped).lower(*args).compile().as_text()


def test_the_reader_against_programs_of_known_collectives():
    mesh, x = sharding.make_mesh(2, 2), jnp.zeros((8, 6), jnp.float32)

    def exchange(x):  # (4, 3) on each device.
        everyone = jax.lax.psum(x, ("data", "support"))
        gathered = jax.lax.all_gather(x.astype(jnp.float64), "support")
        return everyone.sum() + gathered.sum()

    found = collectives(compiled(exchange, mesh, P(), x))
    assert [(c.op, c.size, c.devices, c.looped) for c in sorted(found)] == [
        ("all-gather", 2 * 4 * 3 * 8, 2, False),
        ("all-reduce", 4 * 3 * 4, 4, False),
    ]
    assert collectives(compiled(lambda x: x.sum()[None, None], mesh, P("data", "support"), x)) == []


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("%s = (f32[4,3]{1,0}, f32[8,3]{1,0}) all-gather-start(f32[4,3]{1,0} %p)", 96),
        ("%s = (f32[4,3]{1,0}, f32[4,3]{1,0}, u32[], u32[]) collective-permute-start(%p)", 48),
        ("%s = (f32[4,3]{1,0}, f32[5]{0}) all-reduce-start(%p, %q)", 68),
    ],
)
def test_the_start_of_an_asynchronous_exchange_counts_its_result(line, size):
    (found,) = collectives(f"ENTRY %main {{\n  {line}, replica_groups={{{{0,1}}}}\n}}")
    assert (found.size, found.devices) == (size, 2)


def test_the_reader_tells_what_may_run_more_than_once():
    def loop(x):
        return jax.lax.fori_loop(0, 5, lambda i, x: jax.lax.psum(x, "data") / 2, x)

    text = compiled(loop, sharding.make_mesh(4), P("data"), jnp.zeros((8, 6)))
    assert [c.looped for c in collectives(text)] == [True]


@pytest.mark.parametrize("name", STEPS)
def test_bytes_do_not_depend_on_the_targets(name):
    """And are support-sized: images, their kernel, labels, and a few scalars."""
    mesh = sharding.make_mesh(4)
    few, many = (collectives(STEPS[name](SIZES, mesh, targets)) for targets in (40, 400))
    assert sorted(few) == sorted(many)
    assert many
    images, kernel, labels = 4 * S * PIXELS, 8 * S * S, 8 * S * CLASSES
    if name == "Gauss-Newton step":  # Products with A^T A, each a sum of S images.
        # XLA joins one of them with the sum (float32, S x classes) that projects the noise.
        assert all(c.size <= max(images + labels // 2, kernel + labels) + 64 for c in many)
        assert sum(c.size > images + 64 for c in many) <= 1
        return
    assert not any(c.looped for c in many)
    most = {
        # K_ss whole, twice the images' gradient (from K_ts and K_ss; S padded to 12), labels.
        "KIP step": 2 * 12 / S * images + 12 / S * kernel + labels,
        "Label Solve": kernel + labels,
        "evaluation": 0,
    }
    assert sum(c.size for c in many) <= most[name] + 64
    assert len(many) <= 6


def test_a_sharded_support_sums_predictions_and_nothing_larger():
    """With the support over two devices, predictions (targets, classes) are summed over them."""
    mesh = sharding.make_mesh(2, 2)
    few, many = (
        sum(c.size for c in collectives(STEPS["KIP step"](SIZES, mesh, targets)))
        for targets in (40, 400)
    )
    assert many - few == (400 - 40) // 2 * CLASSES * np.dtype(float).itemsize
