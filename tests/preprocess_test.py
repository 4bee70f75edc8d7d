"""Preprocessing against float64 written out in full; its inverse; its storage."""

import numpy as np
import pytest

from kip_flax import preprocess
from kip_flax.runtime import hardware
from kip_flax.runtime.errors import UserError

RNG = np.random.default_rng(0)


def smooth_images(count: int, channels: int = 3) -> np.ndarray:
    """Images uint8 (count, 6, 5, channels) whose neighbours go together, as in pictures."""
    walks = np.cumsum(RNG.normal(size=(count, 6, 5, channels)), axis=1).cumsum(axis=2)
    return (128 + 12 * walks + [20, -10, 5][:channels]).clip(0, 255).astype(np.uint8)


TRAIN, TEST = smooth_images(400), smooth_images(30)


def standardised(images: np.ndarray) -> np.ndarray:
    scaled = TRAIN.astype(np.float64) / 255
    return (images / 255 - scaled.mean((0, 1, 2))) / scaled.std((0, 1, 2))


def normalised(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = standardised(images).reshape(len(images), -1)
    means = rows.mean(axis=1, keepdims=True)
    norms = np.sqrt(np.square(rows - means).sum(axis=1, keepdims=True))
    return (rows - means) / norms, means, norms


def whitening() -> np.ndarray:
    rows, _, _ = normalised(TRAIN)
    cov = rows.T @ rows / len(rows)
    cov = cov + 0.1 * np.trace(cov) / len(cov) * np.eye(len(cov))
    u, s, _ = np.linalg.svd(cov)
    return u @ np.diag(s**-0.5) @ u.T


def test_none_scales_to_one():
    fitted = preprocess.fit("none", TRAIN)
    out = preprocess.apply(fitted, TEST)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, TEST / 255, rtol=1e-6)
    np.testing.assert_allclose(preprocess.invert(fitted, out), TEST / 255, rtol=1e-6)


def test_centred_is_the_same_for_all_training_sets():
    for train in (TRAIN, np.zeros_like(TRAIN)):
        fitted = preprocess.fit("centred", train)
        out = preprocess.apply(fitted, TEST)
        np.testing.assert_allclose(out, (TEST / 255 - 0.5) / 0.25, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(preprocess.invert(fitted, out), TEST / 255, atol=1e-6)


def test_standard_uses_the_training_set_alone():
    fitted = preprocess.fit("standard", TRAIN)
    out = preprocess.apply(fitted, TEST)
    assert out.shape == TEST.shape
    np.testing.assert_allclose(out, standardised(TEST), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(preprocess.invert(fitted, out), TEST / 255, atol=1e-6)


@pytest.mark.parametrize("name", ["none", "standard", "zca", "zca_center"])
def test_pixels_as_invert_gives_them_come_back(name):
    fitted, other = preprocess.fit(name, TRAIN), preprocess.fit("standard", TEST)
    learned = RNG.normal(size=(4, *TRAIN.shape[1:])).astype(np.float32)
    pixels = preprocess.invert(fitted, learned)
    np.testing.assert_allclose(preprocess.apply(fitted, pixels), learned, atol=1e-4)
    np.testing.assert_allclose(
        preprocess.apply(other, TEST / 255), preprocess.apply(other, TEST), rtol=1e-6
    )


@pytest.mark.parametrize("size", [64, 2048])
def test_zca_matches_float64(monkeypatch, size):
    monkeypatch.setattr(preprocess, "_CHUNK", size * TRAIN[0].size)
    fitted = preprocess.fit("zca_normalize", TRAIN)
    expected = normalised(TEST)[0] @ whitening()
    out = preprocess.apply(fitted, TEST).reshape(len(TEST), -1)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [32, 224])
def test_float64_copies_are_as_large_for_any_size_of_images(side):
    images = np.broadcast_to(np.uint8(0), (5000, side, side, 3))
    parts = [images[part] for part in preprocess._chunks(images)]
    assert sum(map(len, parts)) == 5000
    assert max(part.size for part in parts) <= 2048 * 32 * 32 * 3
    assert len(parts[0]) == 2048 * 32**2 // side**2


@pytest.mark.parametrize("name", ["zca", "zca_center"])
def test_zca_of_images_with_their_norms_matches_float64(name):
    """RFAD whitens standardised images as they are; FRePo subtracts their mean image first."""
    rows, new = (standardised(images).reshape(len(images), -1) for images in (TRAIN, TEST))
    if name == "zca_center":
        rows, new = rows - rows.mean(0), new - rows.mean(0)
    cov = rows.T @ rows / len(rows)
    u, s, _ = np.linalg.svd(cov + 0.1 * np.trace(cov) / len(cov) * np.eye(len(cov)))
    fitted = preprocess.fit(name, TRAIN)
    out = preprocess.apply(fitted, TEST)
    expected = new @ (u @ np.diag(s**-0.5) @ u.T)
    np.testing.assert_allclose(out.reshape(len(TEST), -1), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(preprocess.invert(fitted, out), TEST / 255, atol=1e-5)


def test_zca_whitens_down_to_the_regulariser():
    """Along an eigenvector of variance v the outcome has variance v / (v + r)."""
    rows = normalised(TRAIN)[0]
    variances, basis = np.linalg.eigh(rows.T @ rows / len(rows))
    ridge = 0.1 * variances.mean()
    out = preprocess.apply(preprocess.fit("zca_normalize", TRAIN), TRAIN).reshape(len(TRAIN), -1)
    along = np.square(out @ basis).mean(0)
    np.testing.assert_allclose(along, variances / (variances + ridge), rtol=1e-3, atol=1e-5)
    assert along[-1] > 0.99


def test_zca_inverse_gives_each_image_the_typical_mean_and_norm():
    fitted = preprocess.fit("zca_normalize", TRAIN)
    _, means, norms = normalised(TRAIN)
    typical = normalised(TEST)[0] * np.median(norms) + np.median(means)
    scaled = TRAIN / 255
    expected = typical.reshape(TEST.shape) * scaled.std((0, 1, 2)) + scaled.mean((0, 1, 2))
    shown = preprocess.invert(fitted, preprocess.apply(fitted, TEST))
    assert shown.dtype == np.float32
    np.testing.assert_allclose(shown, expected, atol=1e-4)


def test_the_inverse_does_not_clip():
    fitted = preprocess.fit("standard", TRAIN)
    shown = preprocess.invert(fitted, np.full((1, 6, 5, 3), 100, np.float32))
    assert shown.min() > 1


@pytest.mark.parametrize("name", preprocess.PREPROCESSES)
def test_constant_channels_and_images_become_zero(name):
    train = TRAIN.copy()
    train[..., 1] = 77
    train[:3] = 77
    fitted = preprocess.fit(name, train)
    assert fitted.std[1] == (0.25 if name == "centred" else 1)
    blank = np.broadcast_to(np.rint(fitted.mean * 255).astype(np.uint8), (2, 6, 5, 3))
    for images in (train, TEST, blank):
        assert np.isfinite(preprocess.apply(fitted, images)).all()
    if name == "standard":
        np.testing.assert_allclose(preprocess.apply(fitted, train)[..., 1], 0, atol=1e-6)
    one_colour = preprocess.fit(name, np.full((9, 6, 5, 1), 200, np.uint8))
    out = preprocess.apply(one_colour, np.full((2, 6, 5, 1), 200, np.uint8))
    constants = {"none": 200 / 255, "centred": (200 / 255 - 0.5) / 0.25}
    np.testing.assert_allclose(out, constants.get(name, 0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(preprocess.invert(one_colour, out), 200 / 255, atol=1e-6)


def test_constant_grey_image_among_others_is_zero_after_zca():
    train = smooth_images(50, channels=1)
    fitted = preprocess.fit("zca_normalize", train)
    out = preprocess.apply(fitted, np.full((1, 6, 5, 1), 3, np.uint8))
    np.testing.assert_array_equal(out, 0)


def test_fewer_images_than_pixels():
    fitted = preprocess.fit("zca_normalize", TRAIN[:20])
    assert fitted.whiten is not None
    assert fitted.unwhiten is not None
    identity = fitted.whiten.astype(np.float64) @ fitted.unwhiten
    np.testing.assert_allclose(identity, np.eye(90), atol=1e-5)


@pytest.mark.parametrize("name", preprocess.PREPROCESSES)
def test_storage_keeps_every_bit(tmp_path, name):
    fitted = preprocess.fit(name, TRAIN)
    np.savez(tmp_path / "stored.npz", **preprocess.to_arrays(fitted))
    with np.load(tmp_path / "stored.npz", allow_pickle=False) as stored:
        again = preprocess.from_arrays(dict(stored))
    assert again.name == name
    before, after = preprocess.to_arrays(fitted), preprocess.to_arrays(again)
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert value.dtype == after[key].dtype
        assert value.tobytes() == after[key].tobytes()
    outputs = [preprocess.apply(p, TEST).tobytes() for p in (fitted, again)]
    assert outputs[0] == outputs[1]


def test_errors_say_what_is_wrong():
    with pytest.raises(UserError, match=r"'pca'.*none, centred, standard, zca_normalize"):
        preprocess.fit("pca", TRAIN)
    fitted = preprocess.fit("zca_normalize", TRAIN)
    with pytest.raises(UserError, match="3 channels and 30 pixels"):
        preprocess.apply(fitted, np.zeros((2, 5, 5, 3), np.uint8))
    with pytest.raises(UserError, match="3 channels"):
        preprocess.invert(preprocess.fit("standard", TRAIN), np.zeros((2, 6, 5, 1), np.float32))
    arrays = preprocess.to_arrays(fitted)
    del arrays["whiten"]
    with pytest.raises(UserError, match="whiten"):
        preprocess.from_arrays(arrays)
    with pytest.raises(UserError, match="'other'"):
        preprocess.from_arrays(arrays | {"name": np.array("other")})


@pytest.mark.parametrize(
    "images",
    [TRAIN.astype(np.float32), np.full(TRAIN.shape, np.nan), TRAIN > 100, TRAIN.astype(int)],
    ids=["0 to 255", "nan", "bool", "integers"],
)
def test_what_are_no_pixels_is_refused(images):
    fitted = preprocess.fit("standard", TRAIN)
    with pytest.raises(UserError, match=r"uint8 or finite floats in about \[0, 1\] are expected"):
        preprocess.apply(fitted, images)


def test_a_whitening_that_does_not_fit_into_memory_is_told_of(monkeypatch):
    dim = TRAIN[0].size
    monkeypatch.setattr(hardware, "free_memory", lambda: 32 * dim**2 - 1)
    for name in ("zca_normalize", "zca_center"):
        message = f"preprocess='{name}' of images of {dim} numbers .*: take preprocess='standard'"
        with pytest.raises(UserError, match=message):
            preprocess.fit(name, TRAIN)
    preprocess.fit("standard", TRAIN)
    monkeypatch.setattr(hardware, "free_memory", lambda: 32 * dim**2)
    preprocess.fit("zca_center", TRAIN)
