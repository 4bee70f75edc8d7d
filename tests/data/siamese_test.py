"""DSA's augmentations: alike for two batches, one of them a step, against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from kip_flax.data import augment, siamese

IMAGES = np.random.default_rng(0).normal(size=(6, 16, 16, 3)).astype(np.float32) + 1
ALIKE = jax.jit(siamese.alike, static_argnums=0)
EACH = jax.jit(siamese.each, static_argnums=0)


@pytest.mark.parametrize("name", siamese.STRATEGIES)
def test_both_batches_are_augmented_alike(name):
    """Every image of both as if it stood alone with the same key; another key, another change."""
    key = jax.random.key(3)
    real, synthetic = ALIKE((name,), IMAGES, key), ALIKE((name,), IMAGES[4:], key)
    np.testing.assert_allclose(real[4:], synthetic, atol=1e-6)
    twins = ALIKE((name,), np.repeat(IMAGES[:1], 5, axis=0), key)
    np.testing.assert_allclose(twins, np.repeat(twins[:1], 5, axis=0), atol=1e-6)
    found = {np.asarray(ALIKE((name,), IMAGES, jax.random.key(i))).tobytes() for i in range(12)}
    assert len(found) > 1


def test_in_a_training_every_image_has_parameters_of_its_own():
    twins = np.repeat(IMAGES[:1], 5, axis=0)
    out = EACH(("scale",), twins, jax.random.key(0), np.arange(5))
    assert len({image.tobytes() for image in np.asarray(out)}) == 5
    # What an image gets follows from its number, not from its neighbours.
    part = EACH(("scale",), twins[2:], jax.random.key(0), np.arange(2, 5))
    np.testing.assert_allclose(part, out[2:], atol=1e-6)


def test_one_of_the_named_is_drawn():
    """Cutout leaves most pixels as they are and sets others to 0; a flip only moves them."""
    drawn = []
    for number in range(40):
        out = np.asarray(ALIKE(("cutout", "flip"), IMAGES, jax.random.key(number)))
        drawn.append("cutout" if (out == 0).any() else "flip")
        if drawn[-1] == "flip":
            flipped = np.array_equal(out, IMAGES[:, :, ::-1])
            assert flipped or np.array_equal(out, IMAGES)
    assert 8 <= drawn.count("cutout") <= 32  # 20 are expected, four standard deviations around.


def test_no_names_change_nothing():
    np.testing.assert_array_equal(siamese.alike((), jnp.asarray(IMAGES), jax.random.key(0)), IMAGES)


def test_colours_are_numpys():
    image = IMAGES[0].astype(np.float64)
    brightness, saturation, contrast = 0.3, 1.7, 0.6
    out = image + brightness
    grey = out.mean(axis=2, keepdims=True)
    out = grey + saturation * (out - grey)
    out = out.mean() + contrast * (out - out.mean())
    ours = augment.colored(jnp.asarray(IMAGES[0]), brightness, saturation, contrast)
    np.testing.assert_allclose(ours, out, atol=1e-5)


@pytest.mark.parametrize("matrix", [np.diag([1.2, 0.9]), np.array([[0.97, -0.25], [0.25, 0.97]])])
def test_scaling_and_rotation_are_scipys(matrix):
    centre = np.array([7.5, 7.5])
    ours = augment.warped(jnp.asarray(IMAGES[0]), jnp.asarray(matrix))
    for channel in range(3):
        expected = scipy.ndimage.affine_transform(
            IMAGES[0, ..., channel],
            matrix,
            offset=centre - matrix @ centre,
            order=1,
            mode="grid-constant",
        )
        np.testing.assert_allclose(ours[..., channel], expected, atol=1e-4)


def test_strengths_are_the_published_ones():
    """Over many keys parameters reach, and do not pass, those of the published ParamDiffAug."""
    keys = jax.random.split(jax.random.key(0), 400)
    one = jnp.zeros((28, 28, 1)).at[14, 14].set(1.0)
    moved = jax.vmap(augment.function("crop"), (None, 0))(one, keys)
    rows, columns = (np.asarray(moved).sum((axis, 3)).argmax(1) - 14 for axis in (2, 1))
    for move in (rows, columns):
        assert (move.min(), move.max()) == (-4, 4)  # 0.125 of 28, rounded.
    flat = jnp.full((4, 4, 3), 2.0)
    bright = np.asarray(jax.vmap(augment.function("color"), (None, 0))(flat, keys))[:, 0, 0, 0] - 2
    assert -0.5 <= bright.min() < -0.48
    assert 0.48 < bright.max() <= 0.5
    # A line through the centre is turned by up to 15 degrees; a square is scaled by 1/1.2 to 1.2.
    line = jnp.zeros((33, 33, 1)).at[16].set(1.0)
    turned = np.asarray(jax.vmap(augment.function("rotate"), (None, 0))(line, keys))[..., 0]
    heights = turned[:, :, 24].argmax(1) - 16  # Eight columns from the centre.
    assert heights.max() == -heights.min() == round(8 * np.tan(np.deg2rad(15)))
    square = jnp.zeros((32, 32, 1)).at[10:22, 10:22].set(1.0)
    scaled = np.asarray(jax.vmap(augment.function("scale"), (None, 0))(square, keys))[..., 0]
    for axis in (1, 2):
        sides = scaled.max(axis).sum(1)
        assert 12 / 1.2 - 1 < sides.min() < 12 / 1.2 + 1
        assert 12 * 1.2 - 1 < sides.max() < 12 * 1.2 + 1
