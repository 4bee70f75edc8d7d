"""Artefacts: what is written is read back, what is broken is refused in one line."""

import csv
import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from kip_flax import architectures, export, preprocess
from kip_flax.data import Dataset
from kip_flax.preprocess import Preprocess
from kip_flax.runtime import files
from kip_flax.runtime.errors import UserError

S, C = 6, 3
NAMES = ("ant", "bee", "cat")


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(S, 5, 4, 3)).astype(np.float32)
    return images, rng.normal(size=(S, C)).astype(np.float32)


MEAN, STD = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], np.float32)


def write(path, fitted=None, seed=0):
    images, labels = arrays(seed)
    description = export.Description(
        fitted or Preprocess("none", np.zeros(3, np.float32), np.ones(3, np.float32)),
        class_names=NAMES,
        kernel={"architecture": "fc", "depth": 1, "w_std": 2**0.5},
        provenance={"dataset": "digits", "seed": 0},
    )
    export.write_distilled(path, images, labels, description)


def refusal(path):
    with pytest.raises(UserError) as caught:
        export.load_distilled(path)
    line = str(caught.value)
    assert "\n" not in line
    assert path.name in line
    return line


def test_round_trip(tmp_path):
    path = tmp_path / "sub" / "set.npz"
    write(path, Preprocess("standard", MEAN, STD))
    read = export.load_distilled(path)
    images, labels = arrays()
    np.testing.assert_array_equal(read.images, images)
    np.testing.assert_array_equal(read.labels, labels)
    assert read.class_names == NAMES
    assert read.meta["class_names"] == list(NAMES)
    assert read.meta["kernel"] == {"architecture": "fc", "depth": 1, "w_std": 2**0.5}
    assert read.meta["provenance"] == {"dataset": "digits", "seed": 0}
    assert read.preprocess_name == "standard"
    assert str(read.preprocess["name"]) == "standard"
    np.testing.assert_array_equal(read.preprocess["mean"], MEAN)
    np.testing.assert_array_equal(read.preprocess["std"], STD)
    assert os.listdir(path.parent) == ["set.npz"]


def test_the_same_input_gives_the_same_bytes(tmp_path):
    write(tmp_path / "a.npz")
    write(tmp_path / "b.npz")
    write(tmp_path / "c.npz", seed=1)
    a, b, c = ((tmp_path / f"{name}.npz").read_bytes() for name in "abc")
    assert a == b != c


def test_whitening_matrices_lie_once_beside_light_files(tmp_path):
    whiten = np.random.default_rng(0).normal(size=(600, 600)).astype(np.float32)
    fitted = Preprocess("zca_normalize", MEAN, STD, whiten=whiten)
    write(tmp_path / "step0.npz", fitted)
    write(tmp_path / "step1.npz", fitted)
    sides = list(tmp_path.glob("preprocess-*.npz"))
    assert len(sides) == 1
    assert (tmp_path / "step1.npz").stat().st_size < 10_000 < sides[0].stat().st_size
    read = export.load_distilled(tmp_path / "step1.npz")
    np.testing.assert_array_equal(read.preprocess["whiten"], whiten)
    sides[0].unlink()
    alone = export.load_distilled(tmp_path / "step1.npz")
    assert alone.preprocess is None
    assert alone.preprocess_name == "zca_normalize"


@pytest.mark.parametrize("name", ["standard", "zca_normalize"])
def test_pictures_of_a_set_have_its_preprocessing_undone(tmp_path, name):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 5, 4, 3), np.uint8)
    fitted = preprocess.fit(name, pixels)
    images, labels = preprocess.apply(fitted, pixels[:S]), arrays()[1]
    export.write_distilled(tmp_path / "set.npz", images, labels, export.Description(fitted, NAMES))
    read = export.load_distilled(tmp_path / "set.npz")
    np.testing.assert_array_equal(read.pictures(), preprocess.invert(fitted, images))
    assert read.norm_is_lost is (name == "zca_normalize")


def test_pictures_of_a_set_without_preprocessing_are_stretched(tmp_path):
    images, labels = arrays()
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    read = export.load_distilled(tmp_path / "set.npz")
    shown = read.pictures()
    assert (shown.min(), shown.max()) == (0, 1)
    np.testing.assert_allclose(shown * np.ptp(images) + images.min(), images, atol=1e-6)
    assert not read.norm_is_lost


@pytest.mark.parametrize(
    ("name", "preprocessing"),
    [
        ("ConvNet_ssize100_zca_nol_noaug_ckpt1000", "zca_normalize"),
        ("ConvNet_ssize100_nozca_l_noaug_ckpt1000", "standard"),
        ("mine", None),
    ],
)
def test_published_files_load_without_the_extras(tmp_path, name, preprocessing):
    images, labels = arrays()
    np.savez(tmp_path / f"{name}.npz", images=images.astype(np.float64), labels=labels)
    read = export.load_distilled(tmp_path / f"{name}.npz")
    assert read.images.dtype == np.float32
    np.testing.assert_array_equal(read.images, images)
    assert read.meta is None
    assert read.preprocess is None
    assert read.class_names == ("0", "1", "2")
    assert read.preprocess_name == preprocessing


def test_names_are_the_published_ones():
    shown = architectures.published_name
    assert [shown("fc", 1), shown("conv", 3), shown("myrtle", 10)] == ["FC1", "Conv3", "Myrtle10"]
    assert [shown("convnet", 3), shown("convnet_plain", 3)] == ["ConvNet", "ConvNet3"]
    assert shown("convnet", 2) != shown("convnet_plain", 2)
    name = export.distilled_name("ConvNet", 100, "zca_normalize", False, False, 1000)
    assert name == "ConvNet_ssize100_zca_nol_noaug_ckpt1000"
    name = export.distilled_name(shown("fc", 1), 10, "standard", True, True, 0)
    assert name == "FC1_ssize10_nozca_l_aug_ckpt0"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"images": None}, "lacks images"),
        ({"labels": None}, "lacks labels"),
        ({"images": np.zeros((S, 60), np.float32)}, r"(6, 60)"),
        ({"images": np.zeros((S, 5, 4, 3), np.uint8)}, "uint8"),
        ({"labels": np.zeros(S, np.int64)}, "centered_one_hot"),
        ({"labels": np.zeros((S + 1, C), np.float32)}, "6 images but 7 labels"),
        ({"labels": np.full((S, C), np.nan)}, "NaN"),
        ({"images": np.zeros((0, 5, 4, 3), np.float32)}, r"(0, 5, 4, 3)"),
        ({"meta": np.array("{")}, "meta"),
        ({"labels": np.array([[object()] * C] * S)}, "plain arrays"),
    ],
)
def test_wrong_contents_are_refused(tmp_path, changes, says):
    images, labels = arrays()
    contents = {"images": images, "labels": labels, **changes}
    np.savez(tmp_path / "set.npz", **{k: v for k, v in contents.items() if v is not None})
    assert says in refusal(tmp_path / "set.npz")


def test_missing_and_foreign_files_are_refused(tmp_path):
    assert "does not exist" in refusal(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("images, labels")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "folder.npz").mkdir()
    np.save(tmp_path / "single.npy", arrays()[0])
    for name in ("text.npz", "empty.npz", "folder.npz", "single.npy"):
        assert "not a whole npz" in refusal(tmp_path / name)


def test_damage_anywhere_is_refused(tmp_path):
    path = tmp_path / "set.npz"
    write(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        assert "not a whole npz" in refusal(path)
    images, labels = arrays()
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            read = export.load_distilled(path)
        except UserError:
            continue
        # A bit that no checksum covers (dates, attributes ...) may flip, if nothing changes by it.
        np.testing.assert_array_equal(read.images, images)
        np.testing.assert_array_equal(read.labels, labels)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    files.write_json(path, {"a": 1})

    def full(_):
        raise OSError(28, "No space left on device")

    for call in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, lambda *_: full(_))
            with pytest.raises(UserError, match=r"^cannot write .*file\.json: No space left"):
                files.write_json(path, {"a": 2})
        assert json.loads(path.read_text()) == {"a": 1}
        assert os.listdir(tmp_path) == ["file.json"]
    files.write_json(path, {"a": 3})
    assert json.loads(path.read_text()) == {"a": 3}
    with pytest.raises(UserError, match="cannot write"):
        files.write_bytes_atomic(path / "below_a_file", b"")


def row(ckpt, accuracy, **changes):
    name = f"FC1_ssize10_nozca_l_noaug_ckpt{ckpt}.npz"
    values = ("FC1", "digits", 10, False, True, False, ckpt, accuracy, np.float32(0.25), name, "")
    return dict(zip(export.INDEX_COLUMNS, values, strict=True)) | changes


def test_index_holds_each_checkpoint_once_in_order(tmp_path):
    path = tmp_path / "index.csv"
    for ckpt, accuracy in ((100, 0.5), (20, 0.25), (3, 0.125), (20, 0.75), (20, 0.75)):
        export.update_index(path, row(ckpt, accuracy))
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    header = "architecture,dataset,ssize,zca,l,aug,ckpt,test_acc,test_mse,URL,network_acc"
    assert path.read_text().splitlines()[0] == header
    assert [(r["ckpt"], r["test_acc"]) for r in rows] == [
        ("3", "0.125"),
        ("20", "0.75"),
        ("100", "0.5"),
    ]
    assert rows[0]["test_mse"] == "0.25"
    assert rows[0]["zca"] == "False"
    export.update_index(path, row(20, 0.9, ssize=50))
    assert len(path.read_text().splitlines()) == 5


def test_an_index_from_before_networks_is_read(tmp_path):
    path = tmp_path / "index.csv"
    header = "architecture,dataset,ssize,zca,l,aug,ckpt,test_acc,test_mse,URL"
    path.write_text(f"{header}\nFC1,digits,10,False,True,False,0,0.5,0.25,a.npz\n")
    export.update_index(path, row(20, 0.75, network_acc="0.4"))
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["ckpt"], r["URL"], r["network_acc"]) for r in rows] == [
        ("0", "a.npz", ""),
        ("20", "FC1_ssize10_nozca_l_noaug_ckpt20.npz", "0.4"),
    ]


@pytest.mark.parametrize(
    "text", ["a,b\n1,2\n", ",".join(export.INDEX_COLUMNS) + "\nFC1,digits\n", "\udcff", ""]
)
def test_a_foreign_index_is_refused_and_kept(tmp_path, text):
    path = tmp_path / "index.csv"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(UserError, match=r"index\.csv.*move it away"):
        export.update_index(path, row(0, 0.5))
    assert path.read_text(errors="surrogateescape") == text


def a_dataset():
    images = np.zeros((S, 4, 4, 1), np.uint8)
    labels = np.arange(S, dtype=np.int32) % C
    return Dataset("npz", images, labels, images, labels, NAMES)


def a_set(**changes):
    images, labels = np.zeros((S, 4, 4, 1), np.float32), np.zeros((S, C), np.float32)
    meta = {"preprocess": "standard", "class_names": list(NAMES)}
    return dataclasses.replace(
        export.Distilled(Path("set.npz"), images, labels, meta, None), **changes
    )


@pytest.mark.parametrize("meta", [a_set().meta, None])
def test_a_set_fits_its_data_as_far_as_it_knows_them(meta):
    export.check_fits(a_set(meta=meta), a_dataset(), "standard")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": np.zeros((S, 5, 4, 1), np.float32)}, "5x4x1.*4x4x1.*image_size"),
        ({"labels": np.zeros((S, C + 1), np.float32)}, "4 classes, npz has 3"),
        ({"meta": {"preprocess": "none"}}, r"pass --config\.preprocess=none"),
        ({"meta": {"class_names": ["ant", "bee", "dog"]}}, "ant, bee, dog.*ant, bee, cat"),
        ({"meta": None, "path": Path("ConvNet_ssize6_zca_l_noaug_ckpt0.npz")}, "=zca_normalize"),
    ],
)
def test_a_set_that_does_not_fit_the_config_is_refused(change, says):
    made = a_set(**change)
    with pytest.raises(UserError, match=says) as caught:
        export.check_fits(made, a_dataset(), "standard")
    assert str(made.path) in str(caught.value)
    assert "\n" not in str(caught.value)
