"""Options of a kernel: what is on offer, by name and in one value."""

import importlib.util

import jax
import numpy as np
import pytest

from kip_flax import architectures as arch
from kip_flax import kernels
from kip_flax.runtime.errors import UserError


def test_auto_is_the_fastest_implementation_of_the_device(monkeypatch):
    assert kernels.resolve("auto") == "cpu"
    assert kernels.resolve("neural_tangents") == "neural_tangents"
    for backend in ("gpu", "tpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        assert kernels.resolve("auto") == "xla"


@pytest.mark.parametrize("implementation", ["cpu", "neural_tangents"])
def test_an_implementation_without_its_package(monkeypatch, implementation):
    """requirements-light.txt leaves neural-tangents out."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package .* not installed: .*'auto'"):
        kernels.resolve(implementation)
    assert kernels.resolve("auto") == "xla"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"get": "ntk2"}, "unknown get 'ntk2': it is one of ntk, nngp"),
        ({"parameterization": "mup"}, "unknown parameterization 'mup'"),
        (
            {"implementation": "cuda"},
            "unknown implementation 'cuda'.*auto, cpu, xla, neural_tangents",
        ),
        ({"w_std": 0.0}, "w_std must be positive"),
        ({"w_std": float("nan")}, "w_std must be positive"),
        ({"b_std": -0.1}, "b_std at least 0"),
        ({"width": 0}, "width at least 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        kernels.make_kernel(arch.fc(1), **options)


@pytest.mark.parametrize("implementation", kernels.IMPLEMENTATIONS)
def test_pixels_are_no_images_of_a_kernel(implementation):
    """A product of uint8 numbers is modulo 256."""
    kernel = kernels.make_kernel(arch.fc(1), implementation=implementation)
    pixels = np.zeros((2, 3, 3, 1), np.uint8)
    with pytest.raises(UserError, match="takes images of float32 or float64, not uint8 and uint8"):
        kernel(pixels, pixels)


def test_an_architecture_that_leaves_pixels_is_refused():
    kernel = kernels.make_kernel((arch.Conv(), arch.Relu(), arch.Dense()))
    with pytest.raises(UserError, match="neither Flatten nor GlobalAvgPool"):
        kernel(np.zeros((1, 3, 3, 1), np.float32), np.zeros((1, 3, 3, 1), np.float32))


def test_options_in_one_value_are_those_by_name():
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 1))
    options = {"w_std": 1.3, "b_std": 0.2, "parameterization": "standard", "width": 8}
    made = (
        kernels.make_kernel(kernels.KernelOptions(arch.fc(1), get="nngp", **options)),
        kernels.make_kernel(arch.fc(1), get="nngp", **options),
        kernels.make_kernel(arch.fc(1)),
    )
    one, other, default = (jax.jit(lambda x, kernel=kernel: kernel(x, x))(x) for kernel in made)
    np.testing.assert_array_equal(one, other)
    assert np.abs(one - default).max() > 0.1
    with pytest.raises(TypeError, match="get: set them in the KernelOptions"):
        kernels.make_kernel(kernels.KernelOptions(arch.fc(1)), get="nngp")
