"""The networks of the field against PyTorch (tests/fixtures), and their parameters counted."""

import collections
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo_weights
from flax import nnx

from kip_flax.networks import build, zoo
from kip_flax.runtime.errors import UserError

FILE = np.load(Path(__file__).parents[1] / "fixtures" / "zoo.npz")
COLOUR, GREY = (32, 32, 3), (28, 28, 1)


def conv(size, channels, out, bias=True):
    return size * size * channels * out + (out if bias else 0)


def dense(channels, out):
    return channels * out + out


def norm(channels):
    return 2 * channels


def blocks(channels, out, changes):
    """Two residual blocks, the first of which may change the shape."""
    first = conv(3, channels, out, False) + norm(out) + conv(3, out, out, False) + norm(out)
    first += conv(1, channels, out, False) + norm(out) if changes else 0
    return first + 2 * (conv(3, out, out, False) + norm(out))


def vgg(channels):
    widths = (64, 128, 256, 256, 512, 512, 512, 512)
    into = (channels, *widths)
    convs = sum(conv(3, a, b) + norm(b) for a, b in zip(into, widths, strict=False))
    return convs + dense(512, 10)


def resnet(channels):
    stem = conv(3, channels, 64, False) + norm(64)
    body = blocks(64, 64, False) + blocks(64, 128, True) + blocks(128, 256, True)
    return stem + body + blocks(256, 512, True) + dense(512, 10)


def convnet(channels, depth=3):
    body = conv(3, channels, 128) + (depth - 1) * conv(3, 128, 128) + depth * norm(128)
    return body + dense(128 * (32 // 2**depth) ** 2, 10)


def alexnet(channels):
    body = conv(5, channels, 128) + conv(5, 128, 192) + conv(3, 192, 256) + conv(3, 256, 192)
    return body + conv(3, 192, 192) + dense(192 * 4 * 4, 10)


def lenet(channels):
    dense_layers = dense(16 * 5 * 5, 120) + dense(120, 84) + dense(84, 10)
    return conv(5, channels, 6) + conv(5, 6, 16) + dense_layers


def mlp(channels):
    return dense(28 * 28 if channels == 1 else 32 * 32 * 3, 128) + dense(128, 128) + dense(128, 10)


COUNTS = {
    "mlp": mlp,
    "convnet_in": convnet,
    "convnet2_in": functools.partial(convnet, depth=2),
    "lenet": lenet,
    "alexnet": alexnet,
    "vgg11_in": vgg,
    "vgg11_bn": vgg,
    "resnet18_in": resnet,
    "resnet18_bn": resnet,
}


@pytest.mark.parametrize("shape", [COLOUR, GREY])
@pytest.mark.parametrize("name", zoo.ZOO)
def test_parameters_are_those_of_the_published_definitions(name, shape):
    found = build.num_parameters(lambda rngs: zoo.make_network(name, shape, 10, rngs))
    assert found == COUNTS[name](shape[2])


def drawn_weights(params):
    """The same tree, in whose order the network uses its weights, with those of the file."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    found, seen = [], collections.Counter()
    for path, leaf in leaves:
        name = [key.key for key in path if hasattr(key, "key")][-1]
        drawn = zoo_weights.weight(name, leaf.shape, seen[name, leaf.shape])
        found.append(jnp.asarray(drawn, jnp.float32))
        seen[name, leaf.shape] += 1
    return jax.tree.unflatten(structure, found)


@pytest.mark.parametrize("name", sorted(FILE))
def test_outputs_are_pytorchs(name):
    """Of networks that were written from their descriptions, in float64."""
    net = build.functions(lambda rngs: zoo.make_network(name, COLOUR, 10, rngs))
    params, other = jax.eval_shape(net.init, jax.random.key(0))
    weights = drawn_weights(params)
    other = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), other)
    images = jnp.asarray(zoo_weights.images(), jnp.float32)
    outputs = jax.jit(lambda w, x: net.apply_train(w, other, x)[0])(weights, images)
    np.testing.assert_allclose(outputs, FILE[name], atol=2e-4 * np.abs(FILE[name]).max())
    assert np.abs(FILE[name][0] - FILE[name][1]).max() > 0.1


def test_the_counts_that_publications_print():
    assert convnet(3) == 320_010  # ConvNet-3, width 128.
    assert lenet(3) == 62_006
    assert resnet(3) == 11_173_962  # kuangliu/pytorch-cifar
    assert vgg(3) == 9_231_114  # the same


@pytest.mark.parametrize(
    "name",
    ["convnet_in", *(pytest.param(n, marks=pytest.mark.slow) for n in ("lenet", "resnet18_bn"))],
)
def test_every_parameter_gets_a_gradient(name):
    shape = (16, 16, 3)
    net = build.functions(lambda rngs: zoo.make_network(name, shape, 10, rngs))
    params, other = jax.jit(net.init)(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (4, *shape), jnp.float32)
    targets = jax.random.normal(jax.random.key(2), (4, 10), jnp.float32)

    @jax.jit
    def gradient(params):
        return jax.grad(lambda p: jnp.sum(targets * net.apply_train(p, other, images)[0]))(params)

    for leaf in jax.tree.leaves(gradient(params)):
        assert leaf.dtype == jnp.float32
        assert jnp.abs(leaf).max() > 0


@pytest.mark.slow
def test_batch_norm_keeps_running_averages_and_uses_them():
    net = build.functions(lambda rngs: zoo.make_network("resnet18_bn", (4, 4, 1), 3, rngs))
    params, other = jax.jit(net.init)(jax.random.key(0))
    images = 2 + jax.random.normal(jax.random.key(1), (8, 4, 4, 1), jnp.float32)
    outputs, after = jax.jit(net.apply_train)(params, other, images)
    stem = params["layers"][0]["kernel"][...]
    moments = jax.lax.conv(images.transpose(0, 3, 1, 2), stem.transpose(3, 2, 0, 1), (1, 1), "SAME")
    expected = 0.1 * jnp.mean(moments, (0, 2, 3))  # From 0, with momentum 0.9.
    np.testing.assert_allclose(after["layers"][1]["mean"][...], expected, rtol=1e-4, atol=1e-6)
    # The averages go to the batch's own: then evaluation is training.
    step = jax.jit(lambda _, other: net.apply_train(params, other, images)[1])
    after = jax.jit(lambda other: jax.lax.fori_loop(0, 300, step, other))(after)
    evaluated = jax.jit(net.apply)(params, after, images)
    np.testing.assert_allclose(evaluated, outputs, rtol=1e-2, atol=1e-2)


def test_initial_weights_are_uniform_in_the_fan_in():
    net = zoo.make_network("convnet_in", (8, 8, 1), 10, nnx.Rngs(0))
    layer = net.layers[4]  # The second convolution.
    reach = 1 / np.sqrt(9 * 128)
    for values in (layer.kernel[...], layer.bias[...]):
        assert float(jnp.abs(values).max()) <= reach
    assert float(layer.kernel[...].std()) == pytest.approx(reach / np.sqrt(3), rel=0.01)


@pytest.mark.parametrize(
    ("name", "side"), [("convnet_in", 7), ("lenet", 15), ("vgg11_bn", 31), ("resnet18_in", 8)]
)
def test_small_images_are_refused_in_one_line(name, side):
    with pytest.raises(UserError, match=f"{side}x{side} pixels are too small for {name}") as caught:
        zoo.make_network(name, (side, side, 1), 10, nnx.Rngs(0))
    assert "\n" not in str(caught.value)
    larger = (side + 1, side + 1, 1)
    net = build.functions(lambda rngs: zoo.make_network(name, larger, 10, rngs))
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    outputs = jax.eval_shape(net.apply, *shapes, jax.ShapeDtypeStruct((2, *larger), jnp.float32))
    assert outputs.shape == (2, 10)


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="unknown network 'vit': take one of mlp, convnet_in"):
        zoo.make_network("vit", COLOUR, 10, nnx.Rngs(0))
