"""Augmentations against NumPy and SciPy, one image at a time; alike for two batches, as in DSA."""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from kip_flax.data import augment
from kip_flax.runtime.errors import UserError

IMAGES = np.random.default_rng(0).normal(size=(64, 16, 12, 3)).astype(np.float32) + 3
KEY = jax.random.key(0)
JITTED = jax.jit(augment.augment, static_argnums=0)


def run(name: str, images: np.ndarray = IMAGES, key: jax.Array = KEY) -> np.ndarray:
    return np.asarray(JITTED((name,), jnp.asarray(images), key))


def numpy_shift(image: np.ndarray, down: int, right: int) -> np.ndarray:
    out = np.zeros_like(image)
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            if 0 <= row - down < image.shape[0] and 0 <= column - right < image.shape[1]:
                out[row, column] = image[row - down, column - right]
    return out


def blob(height: int, width: int, row: float, column: float) -> np.ndarray:
    """A smooth bump (height, width, 1) centred at (row, column)."""
    rows, columns = np.mgrid[:height, :width]
    return np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 30)[..., None]


def test_parse():
    assert augment.parse("") == ()
    assert augment.parse(" flip, crop_rotate ") == ("flip", "crop_rotate")
    with pytest.raises(UserError, match=r"'mirror'.*flip, shift, nudge, cutout, crop_rotate"):
        augment.parse("flip,mirror")
    with pytest.raises(UserError, match="''"):
        augment.parse("flip,")
    with pytest.raises(UserError, match="once"):
        augment.parse("flip,flip")


def test_no_augmentation_changes_nothing():
    np.testing.assert_array_equal(augment.augment((), jnp.asarray(IMAGES), KEY), IMAGES)


@pytest.mark.parametrize("name", augment.AUGMENTS)
def test_the_key_decides_for_any_batch(name):
    out = run(name)
    np.testing.assert_array_equal(run(name), out)
    # The first images come out alike whatever follows them: padding a batch changes nothing.
    np.testing.assert_allclose(run(name, IMAGES[:5]), out[:5], atol=1e-4)
    assert not np.allclose(run(name, key=jax.random.key(1)), out)
    same = run(name, np.repeat(IMAGES[:1], 64, axis=0))
    assert len({image.tobytes() for image in same}) > 1  # every image has its own randomness


def test_outside_jit_it_is_the_same():
    names, images = ("flip",), jnp.asarray(IMAGES[:4])
    np.testing.assert_array_equal(augment.augment(names, images, KEY), JITTED(names, images, KEY))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float32, marks=pytest.mark.slow)])
def test_shape_and_dtype_are_kept(dtype):
    images = jnp.asarray(IMAGES[:4], dtype)
    out = JITTED(augment.AUGMENTS, images, KEY)
    assert out.shape == images.shape
    assert out.dtype == dtype
    assert bool(jnp.isfinite(out).all())


def test_flip_is_numpys_half_of_the_time():
    out = run("flip")
    flipped = [np.array_equal(o, i[:, ::-1]) for o, i in zip(out, IMAGES, strict=True)]
    kept = [np.array_equal(o, i) for o, i in zip(out, IMAGES, strict=True)]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    assert 16 <= sum(flipped) <= 48  # 32 are expected, four standard deviations around


def test_shift_is_numpys_up_to_an_eighth():
    moves = [(down, right) for down in range(-2, 3) for right in range(-1, 2)]
    seen = set()
    for out, image in zip(run("shift"), IMAGES, strict=True):
        (move,) = [m for m in moves if np.array_equal(out, numpy_shift(image, *m))]
        seen.add(move)
    assert {down for down, _ in seen} == {-2, -1, 0, 1, 2}
    assert {right for _, right in seen} == {-1, 0, 1}


@pytest.mark.parametrize(
    ("names", "side", "refused"),
    [
        (("nudge",), 15, True),
        (("nudge",), 16, False),
        (("shift", "nudge"), 7, True),
        (("shift", "nudge"), 8, False),
        (("nudge", "flip"), 8, False),
        ((), 8, False),
    ],
)
def test_moves_that_no_pixel_follows_are_refused(names, side, refused):
    error = pytest.raises(UserError, match="by less than one pixel")
    with error if refused else nullcontext():
        augment.check_effect(names, (side - 5, side, 1), "augment")


def test_nudge_is_numpys_up_to_a_sixteenth():
    moves = [(down, 0) for down in range(-1, 2)]
    for out, image in zip(run("nudge"), IMAGES, strict=True):
        assert any(np.array_equal(out, numpy_shift(image, *m)) for m in moves)
    assert len({out.tobytes() for out in run("nudge")}) > len(IMAGES) // 2


@pytest.mark.parametrize("move", [(0, 0), (3, -2), (-16, 5)])
def test_shifted(move):
    out = augment.shifted(jnp.asarray(IMAGES[0]), jnp.array(move))
    np.testing.assert_array_equal(out, numpy_shift(IMAGES[0], *move))


def test_cutout_is_numpys_anywhere():
    centres = [(row, column) for row in range(16) for column in range(12)]
    rows = []
    for out, image in zip(run("cutout"), IMAGES, strict=True):
        found = []
        for row, column in centres:
            expected = image.copy()
            expected[max(0, row - 3) : row + 3, max(0, column - 3) : column + 3] = 0
            if np.array_equal(out, expected):
                found.append((row, column))
        assert len(found) == 1
        rows.append(found[0][0])
    assert min(rows) <= 3
    assert max(rows) >= 12


def test_cutout_of_32_pixels_is_the_published_16():
    out = augment.cut_out(jnp.ones((32, 32, 3)), jnp.array([16, 10]))
    assert int((out[..., 0] == 0).sum()) == 16 * 16


def test_crop_rotated_by_nothing_is_the_image():
    out = augment.crop_rotated(jnp.asarray(IMAGES[0]), 0.0, 1.0, jnp.zeros(2))
    np.testing.assert_allclose(out, IMAGES[0], rtol=1e-6)


def test_a_quarter_turn_is_numpys():
    square = IMAGES[0, :12]
    out = augment.crop_rotated(jnp.asarray(square), jnp.pi / 2, 1.0, jnp.zeros(2))
    # Points on the border may fall outside by a rounding: they are left out.
    np.testing.assert_allclose(out[1:-1, 1:-1], np.rot90(square, -1)[1:-1, 1:-1], atol=1e-4)


def test_rotation_of_a_smooth_image():
    """A bump lands where its centre does, and keeps its form up to the bilinear error."""
    angle = np.deg2rad(12)
    image = blob(32, 32, 20, 18)
    out = np.asarray(augment.crop_rotated(jnp.asarray(image), angle, 1.0, jnp.zeros(2)))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.linalg.inv(turn) @ (np.array([20, 18]) - 15.5) + 15.5
    np.testing.assert_allclose(out, blob(32, 32, *centre), atol=0.02)


def test_crop_rotated_matches_scipy():
    angle, window, place = 0.2, 0.85, np.array([0.5, -1.0])
    last = np.array([15, 11])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corner_room = last * (1 - window) / 2
    centre = last / 2 + place * corner_room
    out = augment.crop_rotated(jnp.asarray(IMAGES[0]), angle, window, jnp.asarray(place))
    for channel in range(3):
        expected = scipy.ndimage.affine_transform(
            IMAGES[0, ..., channel],
            window * turn,
            offset=centre - window * turn @ (last / 2),
            order=1,
            mode="grid-constant",
        )
        np.testing.assert_allclose(out[..., channel], expected, atol=1e-4)


def test_crop_and_rotation_stay_within_their_bounds():
    """Constant pictures keep their value but in the corners, where 0 may turn in."""
    out = run("crop_rotate", np.ones((64, 16, 16, 1), np.float32))
    assert out.min() >= -1e-6
    assert out.max() <= 1 + 1e-6
    np.testing.assert_allclose(out[:, 5:11, 5:11], 1, atol=1e-5)
    # A crop only enlarges, by at most 1.2 in each direction.
    grown = run("crop_rotate", np.repeat(blob(32, 32, 15.5, 15.5)[None], 64, 0))
    areas = grown.sum((1, 2, 3)) / blob(32, 32, 15.5, 15.5).sum()
    assert areas.min() > 0.98
    assert areas.max() < 1.2**2 + 0.02
    assert areas.max() > 1.3


PICTURES = np.random.default_rng(0).normal(size=(6, 16, 16, 3)).astype(np.float32) + 1
ALIKE = jax.jit(augment.siamese, static_argnums=0)
EACH = jax.jit(augment.one_of, static_argnums=0)


@pytest.mark.parametrize("name", augment.DSA_AUGMENTS)
def test_both_batches_are_augmented_alike(name):
    """Every image of both as if it stood alone with the same key; another key, another change."""
    key = jax.random.key(3)
    real, synthetic = ALIKE((name,), PICTURES, key), ALIKE((name,), PICTURES[4:], key)
    np.testing.assert_allclose(real[4:], synthetic, atol=1e-6)
    twins = ALIKE((name,), np.repeat(PICTURES[:1], len(PICTURES), axis=0), key)
    np.testing.assert_allclose(twins, np.repeat(twins[:1], len(twins), axis=0), atol=1e-6)
    found = {np.asarray(ALIKE((name,), PICTURES, jax.random.key(i))).tobytes() for i in range(12)}
    assert len(found) > 1


def test_in_a_training_every_image_has_parameters_of_its_own():
    twins = np.repeat(PICTURES[:1], 5, axis=0)
    out = EACH(("scale",), twins, jax.random.key(0), np.arange(5))
    assert len({image.tobytes() for image in np.asarray(out)}) == 5
    # What an image gets follows from its number, not from its neighbours.
    part = EACH(("scale",), twins[2:], jax.random.key(0), np.arange(2, 5))
    np.testing.assert_allclose(part, out[2:], atol=1e-6)


def test_one_of_the_named_is_drawn():
    """Cutout leaves most pixels as they are and sets others to 0; a flip only moves them."""
    drawn = []
    for number in range(40):
        out = np.asarray(ALIKE(("cutout", "flip"), PICTURES, jax.random.key(number)))
        drawn.append("cutout" if (out == 0).any() else "flip")
        if drawn[-1] == "flip":
            flipped = np.array_equal(out, PICTURES[:, :, ::-1])
            assert flipped or np.array_equal(out, PICTURES)
    assert 8 <= drawn.count("cutout") <= 32  # 20 are expected, four standard deviations around.


def test_no_names_change_nothing():
    np.testing.assert_array_equal(
        augment.siamese((), jnp.asarray(PICTURES), jax.random.key(0)), PICTURES
    )


def test_colours_are_numpys():
    image = PICTURES[0].astype(np.float64)
    brightness, saturation, contrast = 0.3, 1.7, 0.6
    out = image + brightness
    grey = out.mean(axis=2, keepdims=True)
    out = grey + saturation * (out - grey)
    out = out.mean() + contrast * (out - out.mean())
    ours = augment.colored(jnp.asarray(PICTURES[0]), brightness, saturation, contrast)
    np.testing.assert_allclose(ours, out, atol=1e-5)


@pytest.mark.parametrize("matrix", [np.diag([1.2, 0.9]), np.array([[0.97, -0.25], [0.25, 0.97]])])
def test_scaling_and_rotation_are_scipys(matrix):
    centre = np.array([7.5, 7.5])
    ours = augment.warped(jnp.asarray(PICTURES[0]), jnp.asarray(matrix))
    for channel in range(3):
        expected = scipy.ndimage.affine_transform(
            PICTURES[0, ..., channel],
            matrix,
            offset=centre - matrix @ centre,
            order=1,
            mode="grid-constant",
        )
        np.testing.assert_allclose(ours[..., channel], expected, atol=1e-4)


def test_strengths_are_the_published_ones():
    """Over many keys parameters reach, and do not pass, those of the published ParamDiffAug."""
    keys = jax.random.split(jax.random.key(0), 400)

    def drawn(name, image):
        return np.asarray(jax.jit(jax.vmap(augment._FUNCTIONS[name], (None, 0)))(image, keys))

    one = jnp.zeros((28, 28, 1)).at[14, 14].set(1.0)
    moved = drawn("crop", one)
    rows, columns = (moved.sum((axis, 3)).argmax(1) - 14 for axis in (2, 1))
    for move in (rows, columns):
        assert (move.min(), move.max()) == (-4, 4)  # 0.125 of 28, rounded.
    flat = jnp.full((4, 4, 3), 2.0)
    bright = drawn("color", flat)[:, 0, 0, 0] - 2
    assert -0.5 <= bright.min() < -0.48
    assert 0.48 < bright.max() <= 0.5
    # A line through the centre is turned by up to 15 degrees; a square is scaled by 1/1.2 to 1.2.
    line = jnp.zeros((33, 33, 1)).at[16].set(1.0)
    turned = drawn("rotate", line)[..., 0]
    heights = turned[:, :, 24].argmax(1) - 16  # Eight columns from the centre.
    assert heights.max() == -heights.min() == round(8 * np.tan(np.deg2rad(15)))
    square = jnp.zeros((32, 32, 1)).at[10:22, 10:22].set(1.0)
    scaled = drawn("scale", square)[..., 0]
    for axis in (1, 2):
        sides = scaled.max(axis).sum(1)
        assert 12 / 1.2 - 1 < sides.min() < 12 / 1.2 + 1
        assert 12 * 1.2 - 1 < sides.max() < 12 * 1.2 + 1
