"""An exported set is read back by the libraries it is meant for, and nothing is lost in it."""

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from made_sets import KERNEL, NAMES, PROVENANCE, a_set, card_of
from PIL import Image

from configs import default
from kip_flax import export, preprocess
from kip_flax.export import torch_files
from kip_flax.modes.export_set.mode import PARQUET, export_file
from kip_flax.runtime.errors import UserError


def test_files_that_are_printed_and_returned_are_there(exported):
    _, _, folder, written, output = exported
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert found == sorted(written)
    assert "exported" in output
    paths = re.findall(r"  \S+(?: \S+)? +(/\S+)$", output, re.MULTILINE)
    assert len(paths) == 5
    assert all(Path(path).exists() for path in paths)


def test_datasets_shows_the_pictures(exported, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    pixels, distilled, folder, *_ = exported
    datasets.disable_progress_bars()
    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.features["label"].names == list(NAMES)
    assert [row["label"] for row in rows] == [0, 0, 1, 1, 2, 2]
    for row, expected in zip(rows, pixels, strict=True):
        assert isinstance(row["image"], Image.Image)
        np.testing.assert_array_equal(np.asarray(row["image"]), expected)
    arrays = rows.with_format("numpy")
    np.testing.assert_array_equal(arrays["array"][:], distilled.images)
    np.testing.assert_array_equal(arrays["soft_label"][:], distilled.labels)


def test_parquet_is_plain_for_other_readers(exported):
    _, distilled, folder, *_ = exported
    table = pyarrow.parquet.read_table(folder / PARQUET)
    assert table.column_names == ["image", "label", "soft_label", "array"]
    assert table["image"][0].as_py()["bytes"].startswith(b"\x89PNG")
    np.testing.assert_array_equal(np.array(table["array"].to_pylist(), "f4"), distilled.images)


def test_torch_files_hold_what_evaluators_load(exported):
    pixels, distilled, folder, *_ = exported
    whole = torch_files.read(folder / "torch" / "distilled.pt")
    np.testing.assert_array_equal(whole["images"], distilled.images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(whole["labels"], distilled.labels)
    assert whole["classes"].tolist() == [0, 0, 1, 1, 2, 2]
    assert (whole["class_names"], whole["preprocess"]) == (list(NAMES), "standard")
    # DatasetCondensation's numbers for CIFAR-10, from its utils.py.
    mean, std = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2023, 0.1994, 0.2010])
    expected = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    images = torch_files.read(folder / "torch" / "images.pt")
    np.testing.assert_allclose(images, expected, atol=2e-6)
    np.testing.assert_array_equal(
        torch_files.read(folder / "torch" / "labels.pt"), distilled.labels
    )
    result = torch_files.read(folder / "torch" / "res_CIFAR10_convnet_2ipc.pt")
    ((result_images, classes),) = result["data"]
    np.testing.assert_array_equal(result_images, images)
    assert (classes.dtype, classes.tolist()) == (np.int64, [0, 0, 1, 1, 2, 2])


def test_torch_loads_all_of_them(exported):
    torch = pytest.importorskip("torch")
    _, distilled, folder, *_ = exported
    files = sorted((folder / "torch").iterdir())
    loaded = {path.name: torch.load(path, weights_only=True) for path in files}
    assert len(loaded) == 4
    np.testing.assert_array_equal(loaded["labels.pt"].numpy(), distilled.labels)
    assert loaded["images.pt"].shape == (6, 3, 5, 4)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(60, 3))
    ((images, classes),) = loaded["res_CIFAR10_convnet_2ipc.pt"]["data"]
    assert torch.isfinite(torch.nn.functional.cross_entropy(network(images), classes))


def test_a_set_whose_name_is_no_text_is_refused(tmp_path):
    _, distilled = a_set(tmp_path)
    path = distilled.path.with_name("set\udce9.npz")  # As Python reads Latin-1 from a disk.
    distilled.path.rename(path)
    with pytest.raises(UserError, match="has a name that is no UTF-8: rename it"):
        export_file(str(path), str(tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*"))


def test_whitened_sets_say_what_is_lost_and_keep_their_matrices(tmp_path):
    (tmp_path / "zca").mkdir()
    _, distilled = a_set(tmp_path / "zca", "zca_normalize", provenance={"dataset": "x"})
    export_file(str(distilled.path), str(tmp_path / "out"))
    header, body = card_of(tmp_path / "out")
    assert "own mean and norm are gone" in body
    assert "None were measured" in body
    again = export.load_distilled(tmp_path / "out" / "set.npz")
    assert again.preprocess.keys() == distilled.preprocess.keys()
    assert header["license"] == "other"
    fitted = preprocess.from_arrays(again.preprocess)
    with Image.open(tmp_path / "out" / "png" / "0_ant" / "0000.png") as image:
        shown = np.asarray(image)
    expected = preprocess.invert(fitted, distilled.images)[0]
    np.testing.assert_allclose(shown / 255, expected.clip(0, 1), atol=0.51 / 255)


def test_what_a_file_says_of_itself_names_no_other_folder(tmp_path):
    a_set(tmp_path, provenance=PROVENANCE | {"dataset": "../../elsewhere/mine"})
    written = export_file(str(tmp_path / "set.npz"), str(tmp_path / "out"))
    assert "torch/res_..-..-elsewhere-mine_convnet_2ipc.pt" in written
    assert {path.name for path in tmp_path.iterdir()} == {"set.npz", "out"}


def test_the_same_set_again_is_the_same_and_another_is_refused(exported, tmp_path):
    _, _, folder, written, _ = exported
    before = {name: (folder / name).read_bytes() for name in written}
    export_file(str(tmp_path / "set.npz"), str(folder))
    assert {name: (folder / name).read_bytes() for name in written} == before
    _, distilled = exported[:2]
    fitted = preprocess.from_arrays(distilled.preprocess)
    description = export.Description(fitted, NAMES, KERNEL, PROVENANCE)
    for images, labels in (
        (distilled.images + 1, distilled.labels),
        (distilled.images, 2 * distilled.labels),
    ):  # Of another seed: all names are the same.
        export.write_distilled(tmp_path / "set.npz", images, labels, description)
        with pytest.raises(UserError, match=r"set\.npz holds another set of this name"):
            export_file(str(tmp_path / "set.npz"), str(folder))
        assert {name: (folder / name).read_bytes() for name in written} == before
    (tmp_path / "set.npz").rename(tmp_path / "other.npz")
    with pytest.raises(UserError, match=r"set\.npz of another set: take an empty --workdir"):
        export_file(str(tmp_path / "other.npz"), str(folder))


def test_files_whose_set_is_not_there_are_not_overwritten(exported):
    """Every export has a parquet file and tensors of the same names."""
    folder = exported[2]
    (folder / "set.npz").unlink()
    with pytest.raises(UserError, match=r"holds torch/distilled\.pt, without set\.npz: take an"):
        export_file(str(exported[1].path), str(folder))


def test_a_page_of_someone_else_is_not_overwritten(exported, tmp_path):
    (tmp_path / "mine").mkdir()
    page = tmp_path / "mine" / "README.md"
    page.write_text("# My project")
    path = exported[1].path
    with pytest.raises(UserError, match=r"holds README\.md, which is no card"):
        export_file(str(path), str(tmp_path / "mine"))
    assert page.read_text() == "# My project"


def test_sets_without_preprocessing_are_refused(tmp_path):
    np.savez(tmp_path / "theirs.npz", images=np.zeros((2, 4, 4, 1)), labels=np.eye(2))
    with pytest.raises(UserError, match="--mode=import"):
        export_file(str(tmp_path / "theirs.npz"), str(tmp_path / "out"))
    train = np.random.default_rng(0).integers(0, 256, (30, 16, 11, 3), np.uint8)
    fitted = preprocess.fit("zca_normalize", train)
    export.write_distilled(
        tmp_path / "ours.npz",
        preprocess.apply(fitted, train[:2]),
        np.eye(2),
        export.Description(fitted, ("a", "b"), provenance={"dataset": "x"}),
    )
    (side,) = tmp_path.glob("preprocess-*.npz")
    export_file(str(tmp_path / "ours.npz"), str(tmp_path / "out"))
    assert (tmp_path / "out" / side.name).read_bytes() == side.read_bytes()
    side.unlink()
    with pytest.raises(UserError, match=f"put the file {side.name}"):
        export_file(str(tmp_path / "ours.npz"), str(tmp_path / "out2"))


def test_lost_whitening_matrices_are_computed_again_from_the_data(tmp_path):
    rng = np.random.default_rng(0)
    train = rng.integers(0, 256, (40, 16, 11, 3), np.uint8)
    labels = np.arange(40) % 2
    data_file = tmp_path / "data.npz"
    np.savez(
        data_file,
        train_images=train,
        train_labels=labels,
        test_images=train[:4],
        test_labels=labels[:4],
        class_names=np.array(["a", "b"]),
    )
    fitted = preprocess.fit("zca_normalize", train)
    path = tmp_path / "ours.npz"
    described = export.Description(fitted, ("a", "b"), provenance={"dataset": "npz"})
    export.write_distilled(path, preprocess.apply(fitted, train[:2]), np.eye(2), described)
    export_file(str(path), str(tmp_path / "before"))
    (side,) = tmp_path.glob("preprocess-*.npz")
    side.unlink()
    config = default.get_config()
    config.dataset.name, config.dataset.data_dir = "npz", str(data_file)
    with pytest.raises(UserError, match=r"made with preprocess=zca_normalize"):
        export_file(str(path), str(tmp_path / "after"), config=config)
    config.preprocess = "zca_normalize"
    export_file(str(path), str(tmp_path / "after"), config=config)
    names = [p.relative_to(tmp_path / "before") for p in (tmp_path / "before").rglob("*.*")]
    assert len(names) > 5
    for name in names:
        assert (tmp_path / "after" / name).read_bytes() == (tmp_path / "before" / name).read_bytes()
