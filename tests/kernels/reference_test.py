"""neural_tangents on today's JAX: against brute force in NumPy, and without leaving traces."""

import sys

import jax
import numpy as np
import pytest

from kip_flax import architectures as arch
from kip_flax import kernels
from kip_flax.kernels import reference

W_STD, B_STD = 1.3, 0.2


def images():
    x = np.random.default_rng(0).normal(size=(3, 5, 4, 2))
    return x[:2], x[1:]  # The second of the one is the first of the other.


def brute_force(spec, x1, x2):
    """NNGP and NTK of two images (H, W, C) with all pixel pairs, as the recursion is written.

    Carries the covariances of image 1 with itself, of 1 with 2 and of 2 with itself, each
    (H, W, H, W), and the tangent kernel of 1 with 2.
    """
    k = [np.einsum("abc,dec->abde", a, b) / a.shape[-1] for a, b in ((x1, x1), (x1, x2), (x2, x2))]
    t = np.zeros_like(k[1])
    for layer in spec:
        if isinstance(layer, arch.Conv | arch.Dense):
            size = layer.size if isinstance(layer, arch.Conv) else 1
            k = [W_STD**2 * window_mean(m, size) + B_STD**2 for m in k]
            t = W_STD**2 * window_mean(t, size) + k[1]
        elif isinstance(layer, arch.Relu):
            variances = [np.einsum("abab->ab", k[i]) for i in (0, 2)]
            pairs = ((0, 0), (0, 1), (1, 1))
            q = [np.sqrt(np.multiply.outer(variances[i], variances[j])) for i, j in pairs]
            angle = [np.arccos(np.clip(m / n, -1, 1)) for m, n in zip(k, q, strict=True)]
            t = t * (np.pi - angle[1]) / (2 * np.pi)
            k = [
                n * (np.sin(a) + (np.pi - a) * np.cos(a)) / (2 * np.pi)
                for n, a in zip(q, angle, strict=True)
            ]
        elif isinstance(layer, arch.AvgPool):
            k, t = [pooled(m, layer.size) for m in k], pooled(t, layer.size)
        elif isinstance(layer, arch.Flatten):
            k, t = [diagonal_mean(m) for m in k], diagonal_mean(t)
        else:
            assert isinstance(layer, arch.GlobalAvgPool)
            k, t = [m.mean(keepdims=True) for m in k], t.mean(keepdims=True)
    return k[1].item(), t.item()


def window_mean(m, size):
    edge = size // 2
    height, width = m.shape[:2]
    padded = np.pad(m, edge)
    shifts = [(a, b) for a in range(size) for b in range(size)]
    return (
        sum(padded[a : a + height, b : b + width, a : a + height, b : b + width] for a, b in shifts)
        / size**2
    )


def pooled(m, size):
    rows, columns = m.shape[0] // size, m.shape[1] // size
    m = m[: rows * size, : columns * size, : rows * size, : columns * size]
    return m.reshape(rows, size, columns, size, rows, size, columns, size).mean(axis=(1, 3, 5, 7))


def diagonal_mean(m):
    return np.einsum("abab->ab", m).mean().reshape(1, 1, 1, 1)


@pytest.mark.parametrize(
    "spec",
    [
        arch.fc(2),
        arch.conv(2),
        arch.convnet(1),
        (
            *(arch.Conv(), arch.Relu(), arch.AvgPool(), arch.Conv(), arch.Relu()),
            *(arch.GlobalAvgPool(), arch.Dense(), arch.Relu(), arch.Dense()),
        ),
    ],
    ids=["fc", "conv", "convnet", "global pool and a hidden dense layer"],
)
def test_against_brute_force(spec):
    x1, x2 = images()
    want = np.array([[brute_force(spec, a, b) for b in x2] for a in x1])
    for i, get in enumerate(kernels.GETS[::-1]):
        options = {"w_std": W_STD, "b_std": B_STD, "get": get}
        kernel = kernels.make_kernel(spec, **options, implementation="neural_tangents")
        # Where images share a patch, c = 1 costs half of float64's digits.
        np.testing.assert_allclose(jax.jit(kernel)(x1, x2), want[..., i], rtol=1e-7)


def test_standard_parameterisation_of_a_fully_connected_network():
    """NTK of one hidden layer: layer by layer, fan_in * mean(K) + 1 for weights and biases."""
    x1, x2 = images()
    width, inputs = 32, 5 * 4 * 2
    dense = {"w_std": W_STD, "b_std": B_STD, "implementation": "neural_tangents"}
    kernel = kernels.make_kernel(arch.fc(1), **dense, parameterization="standard", width=width)
    nngp = kernels.make_kernel(arch.fc(1), **dense, get="nngp")(x1, x2)
    flat1, flat2 = (x.reshape(2, -1) for x in (x1, x2))
    hidden = (np.asarray(nngp) - B_STD**2) / W_STD**2  # Mean of the products of activations.
    before = W_STD**2 * flat1 @ flat2.T / inputs + B_STD**2
    variance = [W_STD**2 * np.mean(x**2, axis=1) + B_STD**2 for x in (flat1, flat2)]
    c = before / np.sqrt(np.multiply.outer(*variance))
    derivative = (np.pi - np.arccos(np.clip(c, -1, 1))) / (2 * np.pi)
    first = flat1 @ flat2.T + 1
    want = width * hidden + 1 + W_STD**2 * derivative * first
    np.testing.assert_allclose(kernel(x1, x2), want, rtol=1e-7)


def test_a_set_with_itself_is_the_set_with_its_copy():
    x, _ = images()
    kernel = kernels.make_kernel(arch.fc(1), implementation="neural_tangents")
    np.testing.assert_allclose(kernel(x, x), kernel(x, x.copy()), rtol=1e-7)


def test_the_import_leaves_no_trace():
    reference.neural_tangents()
    assert not hasattr(jax.core, "Jaxpr")
    assert not hasattr(jax, "util")
    assert "jax.util" not in sys.modules
    assert "neural_tangents.experimental" not in sys.modules
