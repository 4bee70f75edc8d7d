"""Networks by name: what each name makes, and what cannot be made."""

import importlib.machinery
import sys
import types

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from kip_flax import architectures
from kip_flax.networks import build, named
from kip_flax.runtime.errors import UserError

SHAPE, CLASSES = (8, 8, 3), 4


def parameters(name, **changes):
    fields = {"architecture": "fc", "depth": 1, "width": 5, "weights": build.Weights()} | changes
    make = named.maker(name, SHAPE, CLASSES, named.NetworkOptions(**fields))
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


@pytest.mark.parametrize(
    ("name", "message"),
    [("vit", "unknown network 'vit'"), ("lenet", "small"), ("convnet:²", "unknown network")],
)
def test_a_network_that_cannot_be_made_is_reported(name, message):
    with pytest.raises(UserError, match=message):
        parameters(name)


@pytest.fixture
def foreign(monkeypatch):
    """An architecture of one's own."""
    module = types.ModuleType("mine.tiny")
    module.build = lambda depth: architectures.fc(depth + 1)
    module.__spec__ = importlib.machinery.ModuleSpec("mine.tiny", None)
    monkeypatch.setitem(sys.modules, "mine", types.ModuleType("mine"))
    monkeypatch.setitem(sys.modules, "mine.tiny", module)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("kernel", architectures.fc(2)),
        ("convnet:2", architectures.convnet(2)),
        ("mine.tiny:1", architectures.fc(2)),
        ("convnet_in", None),
        ("krr", None),
        ("krr:convnet:2", None),
        ("krr:mine.tiny:1", None),
    ],
)
def test_a_name_stands_for_a_description_or_has_none(foreign, name, spec):
    assert named.spec_of(name, "fc", 2) == spec
    assert named.is_kernel(name) == name.startswith("krr")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit", "unknown network 'vit': take one of kernel, fc:DEPTH"),
        ("mine.tiny", "unknown network 'mine.tiny'"),
        ("mine.none:1", "kernel.architecture is 'mine.none': take one of fc"),
        ("krr:vit:1", "unknown kernel krr:vit:1: write krr, or for example krr:convnet:3"),
        ("myrtle:6", "myrtle has depth 5, 7 or 10, not 6"),
    ],
)
def test_a_name_without_a_network_is_reported(foreign, name, message):
    with pytest.raises(UserError, match=message) as caught:
        named.spec_of(name, "fc", 2)
    assert "\n" not in str(caught.value)
