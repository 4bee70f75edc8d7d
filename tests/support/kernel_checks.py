"""A kernel against neural_tangents in float64, values and gradients, on pairs of every kind."""

import jax
import numpy as np

from kip_flax import kernels

VALUES, GRADIENTS = 1e-5, 1e-4  # Largest relative errors.
# Gradients of pairs so near that neural_tangents in float64 itself has 1e-4 of error at 1e-6.
WITHOUT_X64 = 1e-3
WIDTH = 64  # Matters to 'standard'.
# XLA on CPUs computes pairs of float32 anew wherever they are read: ten times as long to compile.
UNFUSED = {"xla_disable_hlo_passes": "fusion"}


def picture(rng, size, channels):
    """A constant background with something in the middle, as in MNIST."""
    image = np.full((size, size, channels), -0.4)
    inner = slice(size // 3, size - size // 3)
    image[inner, inner] = rng.normal(size=image[inner, inner].shape)
    return image


def image_sets(size, channels, kinds=("same", "1e-3", "1e-2", "5e-2", "ordinary", "background")):
    """x1 (2, ...): noise and a picture; x2: one image a kind, made from the first of x1."""
    rng = np.random.default_rng(size + channels)

    def noise(scale):
        return scale * rng.normal(size=(size, size, channels))

    first = noise(1)
    made = {
        "same": first,
        "ordinary": noise(1),
        "background": picture(rng, size, channels),
        **{scale: first + noise(float(scale)) for scale in ("1e-3", "1e-2", "5e-2")},
    }
    x1 = np.stack([first, picture(rng, size, channels)])
    return x1.astype(np.float32), np.stack([made[kind] for kind in kinds]).astype(np.float32)


def near_images(x):
    """Images near to x (H, W, C) by kind: equal, with noise of every size, or changed in places."""
    rng = np.random.default_rng(3)
    made = {"equal": x.copy()}
    for scale in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        made[f"noise of {scale:g}"] = x + scale * rng.normal(size=x.shape)
    for kind, corner, value in (("cutout", 4, 0), ("one pixel", 3, 0.7)):
        made[kind] = x.copy()
        made[kind][2:corner, 2:corner] = value
    made["one pixel, slightly"] = x.copy()
    made["one pixel, slightly"][2, 2] += 0.01
    return {kind: image.astype(np.float32) for kind, image in made.items()}


def value_and_vjp(kernel, wrt, compiler_options=None):
    """Compiled (x1, x2, weights) -> kernel, and the gradients of sum(weights * kernel)."""

    def run(x1, x2, weights):
        k, vjp = jax.vjp(lambda *moving: kernel(*merged((x1, x2), wrt, moving)), *pick(wrt, x1, x2))
        return k, vjp(weights.astype(k.dtype))

    return jax.jit(run, compiler_options=compiler_options)


def pick(wrt, *values):
    return [values[i] for i in wrt]


def merged(values, wrt, moving):
    replaced = dict(zip(wrt, moving, strict=True))
    return [replaced.get(i, value) for i, value in enumerate(values)]


def relative(a, b):
    """Relative distance of each image's gradient."""
    axes = (1, 2, 3)
    return np.sqrt(np.sum((a - b) ** 2, axes) / np.sum(b**2, axes))


def check(implementation, spec, x1, x2, wrt=(1,), **options):
    """A kernel of float32 images against neural_tangents on the same numbers in float64."""
    weights = np.random.default_rng(9).normal(size=(len(x1), len(x2)))
    options = {"width": WIDTH, **options}
    ours = kernels.make_kernel(spec, implementation=implementation, **options)
    theirs = kernels.make_kernel(spec, implementation="neural_tangents", **options)
    k, gradients = value_and_vjp(ours, wrt)(x1, x2, weights)
    want, exact = value_and_vjp(theirs, wrt)(x1.astype(float), x2.astype(float), weights)
    assert k.dtype == np.float32
    assert want.dtype == np.float64
    np.testing.assert_allclose(k, want, rtol=VALUES)
    for ours_, theirs_ in zip(gradients, exact, strict=True):
        assert relative(ours_, theirs_).max() < GRADIENTS
