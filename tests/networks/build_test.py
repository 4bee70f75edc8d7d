"""Finite networks: layers against XLA's and Flax's, whole networks against neural_tangents'."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from kip_flax import architectures as arch
from kip_flax.kernels import reference
from kip_flax.networks import build, layers
from kip_flax.networks.convolution import convolve
from kip_flax.runtime.errors import UserError

SPECS = {
    "fc": arch.fc(2),
    "conv": arch.conv(2),
    "convnet": arch.convnet(2),
    "convnet_plain": arch.convnet_plain(2),
    "myrtle": arch.myrtle(5),
    "strides": (arch.Conv(3, 2), arch.Relu(), arch.Conv(5, 1), arch.Flatten(), arch.Dense()),
}


def images(n, shape, seed=0):
    return jax.random.normal(jax.random.key(seed), (n, *shape), jnp.float32)


@pytest.mark.parametrize(
    ("pool", "flax_pool"), [("avg_pool", nnx.avg_pool), ("max_pool", nnx.max_pool)]
)
def test_pools_are_flaxs_and_drop_what_is_left_over(pool, flax_pool):
    x = images(2, (7, 5, 3))
    expected = flax_pool(x, (2, 2), (2, 2), "VALID")
    np.testing.assert_allclose(getattr(layers, pool)(x), expected, rtol=1e-6, atol=1e-6)


# Those that the others' layers cover as well.
LONG = [pytest.param(name, "standard", marks=pytest.mark.slow) for name in ("conv", "myrtle")]


@pytest.mark.parametrize(
    ("name", "parameterization"),
    [
        ("fc", "standard"),
        ("convnet", "ntk"),
        ("convnet_plain", "standard"),
        ("strides", "ntk"),
        *LONG,
    ],
)
def test_a_network_with_the_weights_of_neural_tangents_gives_its_outputs(name, parameterization):
    nt = reference.neural_tangents()
    shape, width, spec = (9, 8, 3), 5, SPECS[name]
    options = {"W_std": 1.3, "b_std": 0.4, "parameterization": parameterization}
    stax_layers = [reference._layer(nt, layer, width, options) for layer in spec[:-1]]
    init, apply, _ = nt.stax.serial(*stax_layers, nt.stax.Dense(4, **options))
    _, weights = jax.jit(init, static_argnums=1)(jax.random.key(3), (-1, *shape))
    net = build.functions(
        lambda rngs: build.make_network(
            spec, shape, 4, rngs, width, build.Weights(1.3, 0.4, parameterization)
        )
    )
    params, other = jax.eval_shape(net.init, jax.random.key(0))
    theirs = jax.tree.leaves([{"bias": w[1].reshape(-1), "kernel": w[0]} for w in weights if w])
    treedef = jax.tree.structure(params)
    shapes = jax.tree.map(jnp.shape, jax.tree.leaves(params))
    assert shapes == jax.tree.map(jnp.shape, theirs)
    params = jax.tree.unflatten(treedef, theirs)
    x = images(3, shape).astype(jnp.float64)
    np.testing.assert_allclose(
        jax.jit(net.apply)(params, other, x), jax.jit(apply)(weights, x), rtol=1e-9, atol=1e-9
    )


def test_parameters_are_counted():
    make = functools.partial(build.make_network, arch.convnet(2), (8, 8, 1), 10, width=16)
    expected = (9 * 16 + 16) + 2 * (9 * 16 * 16 + 16) + (4 * 16 * 10 + 10)
    assert build.num_parameters(make) == expected


@pytest.mark.parametrize("parameterization", ["standard", "ntk"])
def test_weights_have_the_moments_of_the_parameterisation(parameterization):
    net = build.make_network(
        arch.fc(2), (4, 4, 1), 10, nnx.Rngs(0), 1000, build.Weights(1.5, 0.3, parameterization)
    )
    kernel, bias = net.layers[3].kernel[...], net.layers[3].bias[...]
    ntk = parameterization == "ntk"
    assert float(kernel.std()) == pytest.approx(1.0 if ntk else 1.5 / 1000**0.5, rel=0.01)
    assert float(bias.std()) == pytest.approx(1.0 if ntk else 0.3, rel=0.1)


def test_images_too_small_for_the_pools_are_refused():
    with pytest.raises(UserError, match="too small for 3 pooling"):
        build.make_network(arch.convnet(3), (4, 4, 1), 10, nnx.Rngs(0))


def test_a_network_that_does_not_end_with_a_dense_layer_is_refused():
    with pytest.raises(UserError, match="last layer of a network is Flatten: end with a Dense"):
        build.make_network((arch.Conv(3), arch.Flatten()), (4, 4, 1), 10, nnx.Rngs(0))


def test_growth_multiplies_channels_after_every_pool():
    make = functools.partial(build.make_network, arch.convnet_plain(3), (8, 8, 1), 10, width=4)
    params = nnx.state(nnx.eval_shape(lambda: make(nnx.Rngs(0), growth=2)), nnx.Param)
    kernels = [leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
    assert kernels == [(3, 3, 1, 4), (3, 3, 4, 8), (3, 3, 8, 16), (16, 10)]


@pytest.mark.parametrize(("name", "axes"), [("batch", (0, 1, 2)), ("instance", (1, 2))])
def test_normalisation_stands_before_every_convolution_but_the_first(name, axes):
    shape, spec = (8, 8, 2), arch.convnet_plain(2)
    made = [
        build.functions(
            functools.partial(build.make_network, spec, shape, 3, width=6, normalization=kind)
        )
        for kind in (name, "none")
    ]
    (params, other), (plain, none) = (jax.jit(net.init)(jax.random.key(0)) for net in made)
    x = 2 + images(5, shape)
    conv1, conv2, dense = plain["layers"][0], plain["layers"][3], plain["layers"][7]

    def convolved(layer, x):
        return convolve(x, layer["kernel"][...]) + layer["bias"][...]

    for i, j in ((0, 0), (4, 3), (8, 7)):  # The same weights, one layer later.
        params["layers"][i] = plain["layers"][j]
    first = layers.avg_pool(jax.nn.relu(convolved(conv1, x)))
    mean, variance = first.mean(axes, keepdims=True), first.var(axes, keepdims=True)
    normal = (first - mean) / jnp.sqrt(variance + 1e-5)
    expected = layers.flatten(layers.avg_pool(jax.nn.relu(convolved(conv2, normal))))
    outputs, after = jax.jit(made[0].apply_train)(params, other, x)
    wanted = expected @ dense["kernel"][...] + dense["bias"][...]
    np.testing.assert_allclose(outputs, wanted, rtol=1e-3, atol=1e-4)
    if name == "batch":
        kept = after["layers"][3]
        np.testing.assert_allclose(kept["mean"][...], 0.9 * mean.ravel(), rtol=1e-4)
        # Evaluation takes the averages: of this batch alone, once they have come to it.
        for _ in range(8):
            after = made[0].apply_train(params, after, x)[1]
    features = jax.jit(made[0].features)(params, after, x)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        features @ dense["kernel"][...] + dense["bias"][...],
        jax.jit(made[0].apply)(params, after, x),
        rtol=1e-4,
        atol=1e-5,
    )
    assert jax.tree.leaves(none) == []


@pytest.mark.parametrize("name", SPECS)
def test_features_are_what_enters_the_last_dense_layer(name):
    net = build.functions(functools.partial(build.make_network, SPECS[name], (9, 8, 3), 4, width=5))
    params, other = jax.jit(net.init)(jax.random.key(0))
    x = images(3, (9, 8, 3))
    found = jax.jit(net.features)(params, other, x)
    dense = params["layers"][len(SPECS[name]) - 1]
    assert found.shape == (3, len(dense["kernel"][...]))
    np.testing.assert_allclose(
        found @ dense["kernel"][...] + dense["bias"][...],
        jax.jit(net.apply)(params, other, x),
        rtol=1e-4,
        atol=1e-5,
    )
