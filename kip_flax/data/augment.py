"""Augmentations of target images: pure functions of a key, inside or outside jit.

They act on preprocessed images. Pixels that move in from outside the frame are 0: the training mean
in the 'standard' and 'zca_normalize' spaces, black in 'none'. `augment` applies all given names.
`siamese` and `one_of` draw one of them for a whole batch, as in Zhao and Bilen, *Dataset
Condensation with Differentiable Siamese Augmentation* (ICML 2021, arXiv 2102.08259), section 3.2;
the strengths, except that of 'nudge', are theirs too.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jax.typing import ArrayLike

from kip_flax.runtime.errors import UserError
from kip_flax.runtime.fields import Section

MAX_SHIFT = 1 / 8  # Of the side.
MAX_NUDGE = 1 / 16
MAX_ANGLE = 15.0  # Degrees.
MAX_ZOOM = 1.2
MAX_BRIGHTNESS = 0.5  # Added or subtracted; in standard deviations in the 'standard' space.
MAX_SATURATION = 2.0
CONTRAST = (0.5, 1.5)

# The six of DSA's published code. Digits do without 'flip', which makes other digits of them.
DSA_AUGMENTS = ("color", "crop", "cutout", "flip", "scale", "rotate")


def parse(spec: str, field: str = "augment") -> tuple[str, ...]:
    """The names in a comma-separated list, in order; '' means none.

    Args:
        spec: the list.
        field: the configuration field that holds it, for the message.

    Raises:
        UserError: a name is unknown or given twice.
    """
    names = tuple(name.strip() for name in spec.split(",")) if spec.strip() else ()
    unknown = [name for name in names if name not in AUGMENTS]
    if unknown:
        raise UserError(
            f"unknown augmentation {unknown[0]!r}: "
            f"{field} is a comma list of {', '.join(AUGMENTS)}, or empty."
        )
    if len(set(names)) < len(names):
        raise UserError(f"{field} is {spec!r}: name each augmentation once.")
    return names


def _check(fields: Mapping[str, Any]) -> None:
    parse(fields["augment"])


SECTION = Section({"augment": str}, check=_check)


def check_effect(names: tuple[str, ...], image_shape: tuple[int, ...], field: str) -> None:
    """Raises UserError if `names` only move images that are too small for it."""
    side, shares = max(image_shape[:2]), {"shift": MAX_SHIFT, "nudge": MAX_NUDGE}
    if names and all(int(side * shares.get(name, 1)) == 0 for name in names):
        raise UserError(
            f"{field} is {','.join(names)!r}, which moves images of {side} pixels by less than one "
            f"pixel: take another augmentation, such as scale,rotate, or leave it empty."
        )


def augment(names: tuple[str, ...], images: jax.Array, key: jax.Array) -> jax.Array:
    """Applies the augmentations `names` in order, with different parameters for every image.

    The result for image i depends on `key` and i alone, not on the number of images.

    Args:
        names: as `parse` gives them (static under jit).
        images: float (n, H, W, C).
        key: a JAX random key.

    Returns:
        The same shape and dtype.
    """
    for number, name in enumerate(names):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(
            jax.random.fold_in(key, number), jnp.arange(len(images))
        )
        images = jax.vmap(_FUNCTIONS[name])(images, keys)
    return images


def siamese(names: tuple[str, ...], images: jax.Array, key: jax.Array) -> jax.Array:
    """Applies one of `names`, drawn with its parameters from `key`, to all `images` (n, H, W, C).

    Two batches with the same key are augmented in the same way, whatever their sizes.
    """
    return _drawn(names, images, key, lambda key: key, None)


def one_of(names: tuple[str, ...], images: jax.Array, key: jax.Array, rows: jax.Array) -> jax.Array:
    """Applies one of `names`, drawn from `key`, with different parameters for every image.

    Args:
        names: as `parse` gives them; () changes nothing.
        images: (n, H, W, C).
        key: of this batch.
        rows: (n,) integers that distinguish the images' parameters: their places in the batch.
    """
    return _drawn(
        names, images, key, lambda key: jax.vmap(jax.random.fold_in, (None, 0))(key, rows), 0
    )


def _drawn(
    names: tuple[str, ...],
    images: jax.Array,
    key: jax.Array,
    spread: Callable[[jax.Array], jax.Array],
    axis: int | None,
) -> jax.Array:
    """Applies one of `names`; `spread` turns a key into one per image (axis 0), or leaves it."""
    if not names:
        return images
    choice_key, parameter_key = jax.random.split(key)
    branches = [jax.vmap(_FUNCTIONS[name], (0, axis)) for name in names]
    number = jax.random.randint(choice_key, (), 0, len(names))
    return jax.lax.switch(number, branches, images, spread(parameter_key))


def _flip(image: jax.Array, key: jax.Array) -> jax.Array:
    """Swaps left and right with probability 1/2."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def _shift(image: jax.Array, key: jax.Array) -> jax.Array:
    """Moves the image by whole pixels, up to `MAX_SHIFT` of the side in each direction."""
    return _moved(image, key, MAX_SHIFT)


def _nudge(image: jax.Array, key: jax.Array) -> jax.Array:
    """Moves the image by whole pixels, up to `MAX_NUDGE` of the side in each direction."""
    return _moved(image, key, MAX_NUDGE)


def _moved(image: jax.Array, key: jax.Array, most: float) -> jax.Array:
    reach = jnp.array([int(side * most) for side in image.shape[:2]])
    return shifted(image, jax.random.randint(key, (2,), -reach, reach + 1))


def _cutout(image: jax.Array, key: jax.Array) -> jax.Array:
    """Sets a square of half the side, centred on any pixel, to 0 (DeVries and Taylor, 2017)."""
    return cut_out(image, jax.random.randint(key, (2,), 0, jnp.array(image.shape[:2])))


def _crop_rotate(image: jax.Array, key: jax.Array) -> jax.Array:
    """Resizes a random window, 1 / `MAX_ZOOM` to 1 of the side, turned by up to `MAX_ANGLE`."""
    angle_key, window_key, place_key = jax.random.split(key, 3)
    angle = jax.random.uniform(angle_key, minval=-MAX_ANGLE, maxval=MAX_ANGLE)
    window = jax.random.uniform(window_key, minval=1 / MAX_ZOOM, maxval=1.0)
    place = jax.random.uniform(place_key, (2,), minval=-1.0, maxval=1.0)
    return crop_rotated(image, jnp.deg2rad(angle), window, place)


def _crop(image: jax.Array, key: jax.Array) -> jax.Array:
    """Pads by `MAX_SHIFT` of the side, rounded, and crops anywhere."""
    reach = jnp.array([int(side * MAX_SHIFT + 0.5) for side in image.shape[:2]])
    return shifted(image, jax.random.randint(key, (2,), -reach, reach + 1))


def _color(image: jax.Array, key: jax.Array) -> jax.Array:
    """Changes brightness, then saturation, then contrast."""
    bright, saturated, contrast = (
        jax.random.uniform(part, dtype=image.dtype) for part in jax.random.split(key, 3)
    )
    low, high = CONTRAST
    return colored(
        image,
        2 * MAX_BRIGHTNESS * (bright - 0.5),
        MAX_SATURATION * saturated,
        low + (high - low) * contrast,
    )


def _scale(image: jax.Array, key: jax.Array) -> jax.Array:
    """Scales rows and columns about the centre, each by 1 / `MAX_ZOOM` to `MAX_ZOOM`."""
    factors = jax.random.uniform(key, (2,), minval=1 / MAX_ZOOM, maxval=MAX_ZOOM)
    return warped(image, jnp.diag(factors))


def _rotate(image: jax.Array, key: jax.Array) -> jax.Array:
    """Turns the image about the centre by up to `MAX_ANGLE`."""
    return warped(
        image, turn(jnp.deg2rad(jax.random.uniform(key, minval=-MAX_ANGLE, maxval=MAX_ANGLE)))
    )


def colored(
    image: jax.Array, brightness: jax.Array, saturation: jax.Array, contrast: jax.Array
) -> jax.Array:
    """`image` with its brightness, then its saturation, then its contrast changed.

    Args:
        image: float (H, W, C).
        brightness: added to every pixel.
        saturation: factor of a pixel's difference from the mean of its channels.
        contrast: factor of a pixel's difference from the mean of the image.
    """
    image = image + brightness
    grey = jnp.mean(image, axis=-1, keepdims=True)
    image = (image - grey) * saturation + grey
    mean = jnp.mean(image)
    return (image - mean) * contrast + mean


def shifted(image: jax.Array, by: jax.Array) -> jax.Array:
    """`image` (H, W, C) moved down and right by `by` (2,) pixels, at most the side; 0 fills in."""
    height, width, channels = image.shape
    padded = jnp.pad(image, ((height, height), (width, width), (0, 0)))
    start = (height - by[0], width - by[1], 0)
    return jax.lax.dynamic_slice(padded, start, (height, width, channels))


def cut_out(image: jax.Array, centre: jax.Array) -> jax.Array:
    """`image` (H, W, C) with 0 in the square of half its shorter side around `centre` (2,).

    The square reaches from centre - side/2 up to, but not including, centre + side/2.
    """
    half = max(1, min(image.shape[:2]) // 4)
    rows, columns = (
        (jnp.arange(side) >= middle - half) & (jnp.arange(side) < middle + half)
        for side, middle in zip(image.shape[:2], centre, strict=True)
    )
    return jnp.where((rows[:, None] & columns)[..., None], 0, image)


def crop_rotated(
    image: jax.Array, angle: jax.Array, window: jax.Array, place: jax.Array
) -> jax.Array:
    """The part of `image` (H, W, C) in a turned window, resized bilinearly to (H, W).

    Args:
        image: float (H, W, C).
        angle: radians by which the window is turned, from rows towards columns.
        window: side of the window over the side of the image, at most 1.
        place: (2,), -1 to 1, from the upper left to the lower right position of an unturned window.
            Corners of a turned one may reach outside the image, where pixels are 0.
    """
    last = jnp.array(image.shape[:2]) - 1
    return warped(image, window * turn(angle), last / 2 * place * (1 - window))


def turn(angle: jax.Array) -> jax.Array:
    """The rotation (2, 2) of (row, column) by `angle` radians."""
    return jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])


def warped(image: jax.Array, matrix: jax.Array, offset: ArrayLike = 0.0) -> jax.Array:
    """`image` (H, W, C) where pixel p, seen from the centre, shows the point `matrix` p + `offset`.

    It is bilinear between pixels and 0 outside. `matrix` (2, 2) and `offset` (2,) act on
    (row, column).
    """
    centre = (jnp.array(image.shape[:2]) - 1) / 2
    grid = jnp.stack(jnp.meshgrid(*map(jnp.arange, image.shape[:2]), indexing="ij"), -1)
    source = centre + offset + jnp.einsum("hwi,ji->hwj", grid - centre, matrix, precision="highest")
    sample = jax.vmap(
        lambda channel: map_coordinates(channel, (source[..., 0], source[..., 1]), order=1),
        in_axes=-1,
        out_axes=-1,
    )
    return sample(image).astype(image.dtype)


_FUNCTIONS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "flip": _flip,
    "shift": _shift,
    "nudge": _nudge,
    "cutout": _cutout,
    "crop_rotate": _crop_rotate,
    "color": _color,
    "crop": _crop,
    "scale": _scale,
    "rotate": _rotate,
}
AUGMENTS: tuple[str, ...] = tuple(_FUNCTIONS)
