"""An exported set is read back by the libraries it is meant for, and nothing is lost in it."""

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from configs import default
from kip_flax import export, preprocess
from kip_flax.export import card, torch_files
from kip_flax.modes.export_set.mode import PARQUET, export_file
from kip_flax.runtime.errors import UserError

NAMES = ("ant", "T-shirt/top", "naïve cat")
KERNEL = {"architecture": "convnet", "depth": 3, "get": "ntk"}
PROVENANCE = {
    "dataset": "cifar10",
    "step": 12,
    "test_accuracy": 0.512345,
    "test_mse": 0.0123,
    "config": {"algorithm": "kip", "support.learn_labels": True, "seed": 7, "reg": 1e-6},
    "versions": {"kip_flax": "0.1.0"},
}


def a_set(folder, name="standard", channels=3, provenance=PROVENANCE):
    """Six images of 5x4: their real pixels in uint8, and the file."""
    rng = np.random.default_rng(channels)
    train = rng.integers(0, 256, (40, 5, 4, channels), dtype=np.uint8)
    fitted = preprocess.fit(name, train)
    labels = rng.normal(size=(6, 3)).astype(np.float32)
    labels[np.arange(6), [0, 0, 1, 1, 2, 2]] += 10
    export.write_distilled(
        folder / "set.npz",
        preprocess.apply(fitted, train[:6]),
        labels,
        export.Description(fitted, NAMES, KERNEL, provenance),
    )
    return train[:6], export.load_distilled(folder / "set.npz")


@pytest.fixture
def exported(tmp_path, capsys):
    pixels, distilled = a_set(tmp_path)
    written = export_file(str(tmp_path / "set.npz"), str(tmp_path / "out"))
    output = capsys.readouterr().out
    return pixels, distilled, tmp_path / "out", written, output


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


def card_of(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body


def test_the_card_has_the_figures(exported):
    header, body = card_of(exported[2])
    assert header["pretty_name"] == "cifar10, distilled to 6 images"
    assert header["size_categories"] == ["n<1K"]
    assert header["task_categories"] == ["image-classification"]
    (split,) = header["configs"][0]["data_files"]
    assert split == {"split": "train", "path": "data/train-*.parquet"}
    for text in (
        "Kernel Inducing Points (KIP), images and labels, step 12, seed 7",
        "6 images of 5x4x3, 3 classes, 2 for each class",
        "51.23 %",
        "0.01230",
        "convnet, 3, ntk; reg 1e-06",
        "`standard`: Pixels in [0, 1] minus the mean",
        "its terms hold",
        "arXiv:2011.00050",
        "arXiv:2107.13034",
        "naïve cat",
    ):
        assert text in body, text
    assert "whitening" not in body
    for path in re.findall(r"`([\w./]+\.(?:npz|pt))`", body):
        assert (exported[2] / path).is_file(), path


def test_the_card_tells_what_networks_reach(tmp_path):
    row = {
        "network": "convnet_plain:3",
        "on": "held_out",
        "recipe": "auto: 500 steps",
        "width": 128,
        "accuracies": [0.4, 0.41],
        "mean": 0.405,
        "std": 0.00707,
    }
    tested = row | {"on": "test", "mean": 0.3951}
    other = row | {"network": "convnet_in", "width": None}
    a_set(tmp_path, provenance=PROVENANCE | {"networks": [row, other, tested]})
    export_file(str(tmp_path / "set.npz"), str(tmp_path / "out"))
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Networks trained on it (auto: 500 steps) reach:\n\n- 39.51 ± 0.71 % of test" in text
    assert "images (2 x convnet_plain:3, width 128)\n- 40.50 ± 0.71 % of held-out" in text
    assert "Held-out images are training images" in text
    assert "usually reach less" not in text
    assert "optimised for one kernel" in text


PRIVACY = {
    "epsilon": 9.998765,
    "delta": 1e-5,
    "steps": 12,
    "sampling_rate": 0.0125,
    "noise_multiplier": 1.25,
    "clip": 0.05,
    "neighbours": "one training image added or removed",
    "accountant": "dp-accounting 0.6.0, privacy loss distributions",
    "not_covered": ["this", "and that"],
}


@pytest.mark.parametrize(
    ("epsilon", "words"),
    [
        (9.998765, "The set is differentially private: epsilon 9.999, delta 1e-05."),
        (None, "The noise can be repeated, so the set is **not private**."),
    ],
)
def test_the_card_of_a_private_set_says_what_is_promised(tmp_path, epsilon, words):
    config = {**PROVENANCE["config"], "algorithm": "dp_kip"}
    stated = {"privacy": {**PRIVACY, "epsilon": epsilon}, "config": config}
    a_set(tmp_path, "centred", provenance=PROVENANCE | stated)
    export_file(str(tmp_path / "set.npz"), str(tmp_path / "out"))
    _, card = card_of(tmp_path / "out")
    assert f"## Privacy\n\n{words}" in card
    for value in ("all sets up to step 12", "0.0125", "norm 0.05", "| 1.25 |", "this; and that."):
        assert value in card
    assert "Vinaroz" in card
    assert "`centred`: Pixels in [0, 1] minus 1/2" in card
    assert ("a set from private data is private" in card) == (epsilon is None)


@pytest.mark.parametrize("name", ["standard", "zca_center", "zca", "zca_normalize"])
@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({}, "of the training images."),
        ({"config": {"dataset.preprocess_from": "cifar100"}}, "the training images of cifar100."),
        ({"layout": "dc", "imported": "x.pt"}, "the constants that the field's evaluators have"),
    ],
)
def test_the_card_says_whose_statistics_preprocess(tmp_path, name, stated, words):
    """Those of a private set are never its own images'."""
    _, distilled = a_set(tmp_path, name, provenance={"dataset": "cifar10"} | stated)
    text = card.preprocessing(distilled)
    assert words.removeprefix("of ") in text
    assert ("{" in text) is False


@pytest.mark.parametrize(
    ("layout", "tags", "cited", "judge"),
    [
        ("frepo", ["feature-regression"], "2206.00719", "network"),
        ("kip", ["kernel-ridge-regression"], "2107.13034", "kernel"),
        ("dc", [], "does not say its method", "network or kernel"),
    ],
)
def test_the_card_of_an_imported_set_cites_who_made_it(tmp_path, layout, tags, cited, judge):
    made = {"dataset": "x", "imported": "best.npz", "layout": layout}
    _, distilled = a_set(tmp_path, "standard", provenance=made)
    export_file(str(distilled.path), str(tmp_path / "out"))
    header, body = card_of(tmp_path / "out")
    assert header["tags"] == ["dataset-distillation", *tags]
    assert cited in body.split("## Citation")[1]
    assert f"optimised for one {judge} and" in body
    assert ("2011.00050" in body) is (layout == "kip")


def test_a_set_whose_name_is_no_text_is_refused(tmp_path):
    _, distilled = a_set(tmp_path)
    path = distilled.path.with_name("set\udce9.npz")  # As Python reads Latin-1 from a disk.
    distilled.path.rename(path)
    with pytest.raises(UserError, match="has a name that is no UTF-8: rename it"):
        export_file(str(path), str(tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*"))


def test_the_card_of_a_rival_names_and_cites_the_rival(tmp_path):
    config = {"algorithm": "dsa", "support.learn_labels": False, "seed": 7}
    made = {"dataset": "x", "config": config, "step": 30}
    _, distilled = a_set(tmp_path, "standard", provenance=made)
    export_file(str(distilled.path), str(tmp_path / "out"))
    header, body = card_of(tmp_path / "out")
    assert header["tags"] == ["dataset-distillation", "gradient-matching"]
    assert "Dataset Condensation with Differentiable Siamese Augmentation (DSA)" in body
    assert [f"arXiv:{number}" in body for number in ("2006.05929", "2102.08259")] == [True, True]
    assert "arXiv:2011.00050" not in body
    assert "optimised for one network" in body
    assert "(DSA), images, labels fixed, step 30, seed 7." in body


def test_the_card_of_an_unknown_method_cites_nobody(tmp_path):
    """Least of all the papers of KIP."""
    config = {"algorithm": "mine.means", "support.learn_labels": True, "seed": 7}
    made = {"dataset": "x", "config": config, "step": 30}
    _, distilled = a_set(tmp_path, "standard", provenance=made)
    export_file(str(distilled.path), str(tmp_path / "out"))
    header, body = card_of(tmp_path / "out")
    assert header["tags"] == ["dataset-distillation"]
    assert "mine.means, images and labels, step 30, seed 7." in body
    assert "The method states no papers" in body.split("## Citation")[1]
    assert "arXiv" not in body


def test_the_card_of_real_images_says_that_they_are_training_images(tmp_path):
    config = {"algorithm": "ls", "support.learn_labels": True, "seed": 7}
    made = {"dataset": "x", "config": config, "step": 1}
    _, distilled = a_set(tmp_path, "standard", provenance=made)
    export_file(str(distilled.path), str(tmp_path / "out"))
    body = card_of(tmp_path / "out")[1]
    assert "Label Solve, real images, labels solved, step 1, seed 7." in body
    assert "The images are training images: a set from private data is private." in body


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


def test_a_card_says_which_images_its_figures_are_of(tmp_path):
    validation = {"validation_accuracy": 0.2512, "validation_mse": 0.0456}
    provenance = {k: v for k, v in PROVENANCE.items() if not k.startswith("test_")} | validation
    a_set(tmp_path, provenance=provenance)
    export_file(str(tmp_path / "set.npz"), str(tmp_path / "out"))
    text = (tmp_path / "out" / "README.md").read_text()
    assert "classifies 25.12 % of the validation images, which were held out of the" in text
    assert "error is 0.04560" in text
    assert "chosen by the test accuracy" not in text
