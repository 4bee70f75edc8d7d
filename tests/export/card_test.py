"""The card of a set: its header, what it states, whom it cites."""

import re

import pytest
from made_sets import PROVENANCE, a_set, card_of

from kip_flax.export import card
from kip_flax.modes.export_set.mode import export_file


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
        "convnet, depth 3, ntk; reg 1e-06",
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
        (4.56712, "The set is differentially private: epsilon 4.568, delta 1e-05."),
        (10.0, "The set is differentially private: epsilon 10, delta 1e-05."),
        (0.3, "The set is differentially private: epsilon 0.3, delta 1e-05."),
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


def card_of_run(tmp_path, **config):
    """Header and body of the card of a set that a run made."""
    config = {"support.learn_labels": True, "seed": 7, **config}
    made = {"dataset": "x", "config": config, "step": 30}
    _, distilled = a_set(tmp_path, "standard", provenance=made)
    export_file(str(distilled.path), str(tmp_path / "out"))
    return card_of(tmp_path / "out")


def test_the_card_of_a_rival_names_and_cites_the_rival(tmp_path):
    header, body = card_of_run(tmp_path, algorithm="dsa", **{"support.learn_labels": False})
    assert header["tags"] == ["dataset-distillation", "gradient-matching"]
    assert "Dataset Condensation with Differentiable Siamese Augmentation (DSA)" in body
    assert [f"arXiv:{number}" in body for number in ("2006.05929", "2102.08259")] == [True, True]
    assert "arXiv:2011.00050" not in body
    assert "optimised for one network" in body
    assert "(DSA), images, labels fixed, step 30, seed 7." in body


def test_the_card_of_an_unknown_method_cites_nobody(tmp_path):
    """Least of all the papers of KIP."""
    header, body = card_of_run(tmp_path, algorithm="mine.means")
    assert header["tags"] == ["dataset-distillation"]
    assert "mine.means, images and labels, step 30, seed 7." in body
    assert "The method states no papers" in body.split("## Citation")[1]
    assert "arXiv" not in body


@pytest.mark.parametrize(
    ("init", "images", "limit"),
    [
        ("real", "real images", "The images are training images"),
        ("a/b.npz", "images of another set", "Learned images can show training images"),
    ],
)
def test_the_card_of_label_solve_says_whose_images_it_has(tmp_path, init, images, limit):
    _, body = card_of_run(tmp_path, algorithm="ls", **{"support.init": init})
    assert f"Label Solve, {images}, labels solved, tile 30, seed 7." in body
    assert f"{limit}: a set from private data is private." in body


def test_a_card_says_which_images_its_figures_are_of(tmp_path):
    validation = {"validation_accuracy": 0.2512, "validation_mse": 0.0456}
    provenance = {k: v for k, v in PROVENANCE.items() if not k.startswith("test_")} | validation
    a_set(tmp_path, provenance=provenance)
    export_file(str(tmp_path / "set.npz"), str(tmp_path / "out"))
    text = (tmp_path / "out" / "README.md").read_text()
    assert "classifies 25.12 % of the validation images, which were held out of the" in text
    assert "error is 0.04560" in text
    assert "chosen by the test accuracy" not in text
