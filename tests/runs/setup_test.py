"""What a run is put together from: data, preprocessing, a folder for one at a time, its steps."""

import dataclasses
import os
import types

import jax
import numpy as np
import pytest
from quick import quick_kernel
from whole_runs import small

from configs import kip_digits
from kip_flax import export, preprocess
from kip_flax.algorithms.interface import Problem
from kip_flax.data import Targets
from kip_flax.export import sets as export_sets
from kip_flax.runs import setup
from kip_flax.runtime import sharding
from kip_flax.runtime.errors import UserError


def test_data_that_differ_in_one_pixel_or_label_have_another_fingerprint(digits):
    images, labels = digits.train_images.copy(), digits.train_labels.copy()
    images[-1, 3, 3, 0] += 1
    labels[0] += 1
    others = ({}, {"train_images": images}, {"train_labels": labels}, {"test_images": images})
    found = [setup.fingerprint(dataclasses.replace(digits, **fields)) for fields in others]
    assert found[0] not in found[1:3]
    assert found[0] == found[3]  # Nothing is made from the test images.


def test_validation_is_taken_from_the_training_images(digits):
    config = kip_digits.get_config()
    config.dataset.validation = 0.25
    held = setup.load(config)
    total = len(digits.train_labels)
    assert len(held.train_labels) + len(held.test_labels) == total
    assert abs(len(held.test_labels) - total / 4) < 10
    assert (held.split, setup.load(kip_digits.get_config()).split) == ("validation", "test")


def test_a_run_that_goes_on_keeps_the_preprocessing_that_it_began_with(digits, tmp_path):
    config = kip_digits.get_config()
    first = setup.kept_preprocessing(config, digits, str(tmp_path), resumed=False)
    darker = dataclasses.replace(digits, train_images=digits.train_images // 2)
    kept = setup.kept_preprocessing(config, darker, str(tmp_path), resumed=True)
    fresh = setup.kept_preprocessing(config, darker, str(tmp_path), resumed=False)
    ours, theirs, others = (
        preprocess.apply(fitted, digits.test_images[:5]) for fitted in (first, kept, fresh)
    )
    np.testing.assert_array_equal(ours, theirs)
    assert np.abs(ours - others).max() > 0.1
    os.remove(tmp_path / "preprocess.npz")  # Lost: it is made again.
    again = setup.kept_preprocessing(config, digits, str(tmp_path), resumed=True)
    np.testing.assert_allclose(preprocess.apply(again, digits.test_images[:5]), ours)


PUBLIC = """
from pathlib import Path

import numpy as np

from kip_flax.data.source import Source

NEEDS_FILES = False


def read(name, root, image_size):
    images = np.random.default_rng(1).integers(90, 110, (50, SIDE, SIDE, 1), dtype=np.uint8)
    part = images, np.arange(50) % 2
    return Source((Path("train"), Path("test")), part, part, ("one", "two"))
"""


def test_preprocessing_is_fitted_on_public_images_where_they_are_named(
    digits, tmp_path, own_module
):
    config = kip_digits.get_config()
    config.dataset.preprocess_from = own_module("public", PUBLIC.replace("SIDE", "8"))
    theirs = kip_digits.get_config()
    theirs.dataset.name = config.dataset.preprocess_from
    public = setup.load(theirs)
    fitted = setup.kept_preprocessing(config, digits, str(tmp_path), resumed=False)
    pixels = public.train_images / 255
    np.testing.assert_allclose(fitted.mean, pixels.mean(), rtol=1e-5)
    np.testing.assert_allclose(fitted.std, pixels.std(), rtol=1e-5)
    darker = dataclasses.replace(digits, train_images=digits.train_images // 2)
    again = setup.kept_preprocessing(config, darker, str(tmp_path), resumed=False)
    np.testing.assert_array_equal(again.mean, fitted.mean)
    config.dataset.name = own_module("private", PUBLIC.replace("SIDE", "8"))
    with pytest.raises(
        UserError, match=r"is 'mine\.public', and dataset\.data_dir has the images of"
    ):
        setup.kept_preprocessing(config, public, str(tmp_path), resumed=False)
    config.dataset.name = "digits"
    config.dataset.preprocess_from = own_module("large", PUBLIC.replace("SIDE", "9"))
    with pytest.raises(
        UserError, match=r"whose images are \(9, 9, 1\).* of digits are \(8, 8, 1\)"
    ):
        setup.kept_preprocessing(config, digits, str(tmp_path), resumed=False)


def test_a_lost_preprocessing_is_fitted_again_on_the_images_that_it_was_fitted_on(
    digits, tmp_path, own_module
):
    config = kip_digits.get_config()
    config.dataset.preprocess_from = own_module("public", PUBLIC.replace("SIDE", "8"))
    path = tmp_path / "FC1_ssize10_nozca_l_noaug_ckpt1.npz"
    images, labels = np.zeros((10, 8, 8, 1), np.float32), np.zeros((10, 10), np.float32)
    np.savez(path, images=images, labels=labels)
    lost = export.load_distilled(path)
    public = setup.kept_preprocessing(config, digits, str(tmp_path), resumed=False)
    again = setup.preprocessing_of(lost, config, digits, "standard")
    np.testing.assert_array_equal(again.mean, public.mean)
    assert again.mean != pytest.approx(digits.train_images.mean() / 255, rel=1e-2)
    # A set that names a module is told apart from one that was fitted on its own data.
    foreign = {"config": {"dataset.preprocess_from": config.dataset.preprocess_from}}
    named = dataclasses.replace(lost, meta={"provenance": foreign})
    again = setup.preprocessing_of(named, config, digits, "standard")
    np.testing.assert_array_equal(again.mean, public.mean)
    with pytest.raises(UserError, match=r"was fitted on mine\.public: pass --config\.dataset"):
        setup.preprocessing_of(named, kip_digits.get_config(), digits, "standard")
    by_name = {"config": {"dataset.preprocess_from": "digits"}}
    named = dataclasses.replace(lost, meta={"provenance": by_name})
    darker = dataclasses.replace(digits, train_images=digits.train_images // 2)
    fitted = setup.preprocessing_of(named, config, darker, "standard")
    np.testing.assert_allclose(fitted.mean, digits.train_images.mean() / 255, rtol=1e-5)
    own = dataclasses.replace(lost, meta={"provenance": {"config": {"seed": 0}}})
    fitted = setup.preprocessing_of(own, config, digits, "standard")
    np.testing.assert_allclose(fitted.mean, digits.train_images.mean() / 255, rtol=1e-5)


def test_a_lost_whitening_is_not_that_of_other_images(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(export_sets, "_HEAVY_BYTES", 1000)  # Whitening goes to a file of its own.
    fit, fits = preprocess.fit, []
    config, fitted = kip_digits.get_config(), preprocess.fit("zca", digits.train_images)
    path = tmp_path / "FC1_ssize10_zca_l_noaug_ckpt1.npz"
    described = export.Description(fitted, digits.class_names)
    export.write_distilled(path, np.ones((10, 8, 8, 1)), np.eye(10), described)
    export.load_distilled(path).preprocess_file.unlink()
    lost = export.load_distilled(path)
    assert lost.preprocess is None
    again = setup.preprocessing_of(lost, config, digits, "zca")
    np.testing.assert_array_equal(again.whiten, fitted.whiten)
    # A copy with other rounding is the same data, a darker one is not.
    copy = np.clip(digits.train_images + np.int8(1) * (digits.train_images % 2), 0, 255)
    copy = dataclasses.replace(digits, train_images=copy.astype(np.uint8))
    setup.preprocessing_of(lost, config, copy, "zca")
    darker = dataclasses.replace(digits, train_images=digits.train_images // 2)
    with pytest.raises(UserError, match=r"whitened by other images than those of digits .*mean of"):
        setup.preprocessing_of(lost, config, darker, "zca")
    # Several sets that lost the same one share it, each after the same check.
    monkeypatch.setattr(preprocess, "fit", lambda *a: fits.append(a) or fit(*a))
    of_set = setup.preprocessings(config, digits)
    assert of_set(lost, "zca") is of_set(export.load_distilled(path), "zca")
    assert len(fits) == 1
    of_darker = setup.preprocessings(config, darker)
    for _ in range(2):
        with pytest.raises(UserError, match="whitened by other images"):
            of_darker(lost, "zca")
    assert len(fits) == 2


def test_a_set_to_begin_with_fits_the_run(digits, tmp_path):
    images, labels = np.zeros((10, 8, 8, 1), np.float32), np.zeros((10, 10), np.float32)
    path = tmp_path / "FC1_ssize10_nozca_l_noaug_ckpt1.npz"
    np.savez(path, images=images, labels=labels)
    config = kip_digits.get_config()
    assert setup.start_of(config, digits) is None
    config.support.init = str(path)
    np.testing.assert_array_equal(setup.start_of(config, digits).images, images)
    config.support.size = 20
    with pytest.raises(UserError, match=r"10 images and support.size is 20: .*support.size=10"):
        setup.start_of(config, digits)
    config.preprocess = "none"
    with pytest.raises(UserError, match="made with preprocess=standard"):
        setup.start_of(config, digits)
    config.support.init = str(tmp_path / "lost.npz")
    with pytest.raises(UserError, match=r"lost\.npz does not exist"):
        setup.start_of(config, digits)


def test_a_folder_is_for_one_at_a_time(tmp_path):
    with setup.own_folder(str(tmp_path / "run"), small()) as folder:
        assert os.path.isabs(folder)
        with (
            pytest.raises(UserError, match=r"workdir .* is in use"),
            setup.own_folder(folder, small()),
        ):
            pass
    with setup.own_folder(folder, small()):  # Free again.
        pass


@pytest.mark.parametrize(
    ("algorithm", "total", "pairs"), [("kip", 12, 400), ("dc", 12, 0), ("ls", 2, 300)]
)
def test_the_algorithm_says_how_many_steps_and_pairs_there_are(algorithm, total, pairs):
    config = small(algorithm=algorithm, eval__steps=(), matching__network="mlp")
    targets = Targets(np.zeros((40, 8, 8, 1), np.float32), np.arange(40) % 10, 10)
    support = setup.first_support(config, targets, jax.random.key(0))
    mesh = sharding.make_mesh(1, 1)
    problem = Problem(config, targets, quick_kernel(None), mesh, jax.random.key(0))
    made = setup.make_distillation(problem, support)
    assert (made.total, made.pairs) == (total, pairs)
    assert made.eval_steps == ({2} if algorithm == "ls" else {0, 1, 2, 4, 6, 8, 12})
    np.testing.assert_array_equal(made.support(made.start())[0], support[0])
    assert [made.work(step) for step in (0, 1, total)] == [0, 1, total]


def test_steps_of_more_targets_are_more_of_the_work():
    """Batches of 100, 200 and 400: four, two and one of seven steps, 400 targets each."""
    config = small(algorithm="kip_newton", num_steps=7, newton__growth=4, batch_size=100)
    targets = Targets(np.zeros((400, 8, 8, 1), np.float32), np.arange(400) % 10, 10)
    support = setup.first_support(config, targets, jax.random.key(0))
    mesh = sharding.make_mesh(1, 1)
    problem = Problem(config, targets, quick_kernel(None), mesh, jax.random.key(0))
    made = setup.make_distillation(problem, support)
    shares = [made.work(step) / 7 for step in range(8)]
    drawn = [0, 100, 200, 300, 400, 600, 800, 1200]
    np.testing.assert_allclose(shares, np.array(drawn) / 1200)


def test_a_set_whose_run_had_another_kernel_is_named():
    config = small(kernel__mirrored=True)
    own = setup.kernel_fields(config)

    def note(kernel):
        return setup.note_on_kernel(types.SimpleNamespace(path="a.npz", kernel=kernel), config)

    assert note(own) == note({}) == ""
    old = {name: value for name, value in own.items() if name != "mirrored"}
    for kernel, was, now in (
        (old, "kernel.mirrored=False", "kernel.mirrored=True"),
        (own | {"w_std": 1.5}, "kernel.w_std=1.5", f"kernel.w_std={own['w_std']}"),
        (own | {"get": "nngp"}, "kernel.kind='nngp'", "kernel.kind='ntk'"),
        (own | {"later": 3}, "kernel.later=3", "kernel.later=None"),
    ):
        assert note(kernel) == f"The run of a.npz measured with {was}; here {now}."
