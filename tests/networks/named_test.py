"""Networks by name: what each name makes, and what cannot be made."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from kip_flax.networks import build, named
from kip_flax.runtime.errors import UserError

SHAPE, CLASSES = (8, 8, 3), 4


def parameters(name, **changes):
    fields = {"architecture": "fc", "depth": 1, "width": 5, "weights": build.Weights()} | changes
    make = named.maker(name, SHAPE, CLASSES, named.Described(**fields))
    return build.num_parameters(make), make


def test_kernel_is_the_description_and_others_are_named():
    dense = (192 + 1) * 5 + (5 + 1) * CLASSES
    assert parameters("kernel")[0] == dense == parameters("fc:1", architecture="conv")[0]
    convolution = (9 * 3 + 1) * 5 + (4 * 4 * 5 + 1) * CLASSES
    assert parameters("convnet_plain:1")[0] == convolution


def test_growth_and_normalisation_are_those_of_the_blocks():
    blocks = build.Blocks(normalization="batch", growth=2)
    number, make = parameters("convnet_plain:2", blocks=blocks)
    first, norm, second = (9 * 3 + 1) * 5, 2 * 5, (9 * 5 + 1) * 10
    assert number == first + norm + second + (2 * 2 * 10 + 1) * CLASSES
    assert make(nnx.Rngs(jax.random.key(0)))(jnp.zeros((2, *SHAPE))).shape == (2, CLASSES)


def test_the_zoo_has_its_own_width():
    assert parameters("mlp")[0] == parameters("mlp", width=7)[0]
    assert parameters("mlp")[0] == (192 + 1) * 128 + (128 + 1) * 128 + (128 + 1) * CLASSES


@pytest.mark.parametrize(("name", "told"), [("vit", "unknown network 'vit'"), ("lenet", "small")])
def test_what_cannot_be_made_is_told(name, told):
    with pytest.raises(UserError, match=told):
        parameters(name)
