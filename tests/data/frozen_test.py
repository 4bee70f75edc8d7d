"""Frozen pixels: which, what they hold, and that no step moves them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from whole_runs import small

from configs import default
from kip_flax import algorithms, export
from kip_flax import config as config_lib
from kip_flax.data import frozen
from kip_flax.modes.train import mode as train
from kip_flax.runtime.errors import UserError

SHAPE = (6, 5, 4, 3)


def configuration(share):
    config = default.get_config()
    config.support.frozen = share
    return config


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_same_share_of_every_image_with_all_channels(share):
    mask = np.asarray(frozen.frozen_pixels(jax.random.key(0), SHAPE, share))
    assert mask.shape == (6, 5, 4, 1)
    assert set(mask.sum(axis=(1, 2, 3))) == {round(20 * share)}
    assert len({row.tobytes() for row in mask}) == 6  # Other pixels in every image.
    frequency = np.mean(
        [frozen.frozen_pixels(jax.random.key(i), SHAPE, share) for i in range(300)], axis=(0, 1)
    )
    error = np.sqrt(share * (1 - share) / 1800)
    assert np.abs(frequency - round(20 * share) / 20).max() < 5 * error


def test_frozen_pixels_are_noise_and_the_others_stay():
    images = jnp.full((400, 8, 8, 1), 7.0)
    found = np.asarray(frozen.corrupted(images, 0.5, seed=0))
    noise = found[found != 7]
    assert noise.size == 400 * 32
    assert abs(noise.mean()) < 5 / np.sqrt(noise.size)
    assert abs(noise.std() - 1) < 5 / np.sqrt(2 * noise.size)
    np.testing.assert_array_equal(found, frozen.corrupted(images, 0.5, seed=0))
    assert not np.array_equal(found, frozen.corrupted(images, 0.5, seed=1))
    assert frozen.corrupted(images, 0.0, seed=0) is images


@pytest.mark.parametrize("name", ["adam", "lamb", "sgd"])
def test_the_optimiser_moves_the_others_alone(name):
    images = frozen.corrupted(jnp.ones(SHAPE), 0.5, seed=0)
    params = {"images": images, "labels": jnp.ones((6, 2))}
    plain = {"adam": optax.adam, "lamb": optax.lamb, "sgd": optax.sgd}[name](0.1)
    tx = frozen.held(plain, 0.5, seed=0)
    state = tx.init(params)
    for _ in range(3):
        gradients = jax.tree.map(jnp.sin, jax.tree.map(lambda p: p + 1, params))
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    moved = np.asarray(params["images"] != images)
    place, _ = jax.random.split(jax.random.fold_in(jax.random.key(0), frozen._FROZEN))
    mask = np.asarray(frozen.frozen_pixels(place, SHAPE, 0.5))
    np.testing.assert_array_equal(moved, np.broadcast_to(~mask, SHAPE))
    assert (params["labels"] != 1).all()
    assert frozen.held(plain, 0.0, seed=0) is plain


@pytest.mark.parametrize("algorithm", ["kip", pytest.param("kip_solve", marks=pytest.mark.slow)])
def test_a_run_ends_with_the_noise_that_it_began_with(algorithm, tmp_path, quick_kernels):
    config = small(algorithm=algorithm, support__frozen=0.75)
    train.train_and_evaluate(config, str(tmp_path))
    first, *_, last = sorted(
        (tmp_path / "distilled").glob("*.npz"), key=lambda p: int(p.stem.split("ckpt")[1])
    )
    before, after = (export.load_distilled(path).images for path in (first, last))
    same = (before == after).all(axis=-1)
    assert (same.sum(axis=(1, 2)) == round(0.75 * same[0].size)).all()
    place, _ = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), frozen._FROZEN))
    np.testing.assert_array_equal(same, frozen.frozen_pixels(place, before.shape, 0.75)[..., 0])


@pytest.mark.parametrize("name", sorted({*algorithms.NAMES} - {"kip", "kip_solve"}))
def test_other_algorithms_refuse_to_freeze_pixels(name):
    """Those that can are in the test above."""
    config = configuration(0.5)
    config.algorithm = name
    message = f"'{name}' freezes no pixels: take 0, or algorithm 'kip' or 'kip_solve'"
    with pytest.raises(UserError, match=message):
        config_lib.validate(config)


def test_what_is_no_share_is_refused():
    with pytest.raises(UserError, match=r"support\.frozen is 1\.0: it is a share"):
        config_lib.validate(configuration(1.0))
    with pytest.raises(UserError, match=r"support\.frozen is -0\.1: it must be at least 0"):
        config_lib.validate(configuration(-0.1))


def test_runs_from_before_the_field_are_the_same_experiment():
    new = configuration(0.0)
    old = new.to_dict()
    del old["support"]["frozen"]
    config_lib.check_same_experiment(old, new, "runs/old")
    with pytest.raises(UserError, match=r"support\.frozen was 0\.0 and is now 0\.5"):
        config_lib.check_same_experiment(old, configuration(0.5), "runs/old")
