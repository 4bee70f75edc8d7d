"""A transfer from file to table: choices, baselines, resume, and the line for every mistake."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_transfers import NAME, make_config, write

from kip_flax import export, preprocess
from kip_flax.data import Targets
from kip_flax.modes.evaluate import mode as evaluate_mode
from kip_flax.modes.transfer import contest, sets
from kip_flax.modes.transfer.mode import transfer_file
from kip_flax.networks.transfer_fields import BASELINES
from kip_flax.runs import setup
from kip_flax.runtime.errors import UserError


def by_name(rows):
    return {(row["set"], row["size"], row["network"]): row for row in rows}


def test_a_refused_transfer_blocks_no_folder(files, tmp_path, quick_kernels):
    config = make_config(networks=("krr",), ladder=(5000,))
    with pytest.raises(UserError, match=r"5000 real images are asked for .* shorten"):
        transfer_file(config, files, str(tmp_path))
    rows = transfer_file(make_config(networks=("krr",), ladder=(20,)), files, str(tmp_path))
    assert [(row["set"], row["size"]) for row in rows][-1] == ("random", 20)


def test_the_table_of_a_transfer(files, tmp_path, quick_kernels, digits, capsys):
    config = make_config(baselines=BASELINES, ladder=(10, 20, 100), lr_factor=(0.3, 1.0))
    rows = by_name(transfer_file(config, files, str(tmp_path)))
    sets = [(name, 10) for name in ("distilled", *BASELINES)]
    sets += [("random", 20), ("random", 100)]
    assert sorted(rows) == sorted((*s, network) for s in sets for network in ("krr", "fc:1"))
    for row in rows.values():
        assert row["mean"] == pytest.approx(np.mean(row["accuracies"]))
    # The kernel regression again, by hand.
    measured = evaluate_mode.evaluate_file(config, files)["accuracy"]
    assert rows["distilled", 10, "krr"]["accuracies"] == [measured]
    assert len(rows["random", 10, "krr"]["accuracies"]) == 3
    networks = {name: row for name, row in rows.items() if name[2] == "fc:1"}
    for row in networks.values():
        assert len(row["accuracies"]) == len(row["learning_rates"]) == 3
        assert row["std"] == pytest.approx(np.std(row["accuracies"], ddof=1))
        held_out = {factor: share for factor, _, share in row["tried"]}
        assert sorted(held_out) == [0.3, 1.0]
        assert row["held_out"] == max(held_out.values()) == held_out[row["lr_factor"]]
    # More images teach more, and good ones more than poor ones.
    ladder = [rows["random", n, "fc:1"]["mean"] for n in (10, 20, 100)]
    assert ladder == sorted(ladder)
    assert ladder[-1] > 0.7
    assert rows["distilled", 10, "fc:1"]["mean"] > rows["initial", 10, "fc:1"]["mean"]
    output = capsys.readouterr().out
    assert "10 distilled" in output
    # Of 6 sets for each seed the same, two short trainings and three; random ones of 10, 20, 100.
    assert re.search(r"about \d+ s: 45 trainings of fc:1, 4 at a time \(compiling", output)
    assert "width 128" in output
    assert "  kernel    krr is by convnet, depth 2, ntk; reg 1e-06.\n" in output
    assert "images are worth" in output
    content = json.loads((tmp_path / "transfer.json").read_text())
    assert by_name(content["rows"]) == rows
    assert set(content["worth"]) == {"krr", "fc:1"}
    assert (tmp_path / "worth.png").stat().st_size > 1000


def test_labels_are_solved_for_no_more_once_their_rows_are_there(
    files, tmp_path, quick_kernels, monkeypatch
):
    solve, solved = sets.label_solved, []
    monkeypatch.setattr(sets, "label_solved", lambda *a: solved.append(a) or solve(*a))
    config = make_config(networks=("krr",), baselines=("label_solve",))
    first = transfer_file(config, files, str(tmp_path))
    config = make_config(networks=("krr",), baselines=("label_solve", "initial"))
    both = by_name(transfer_file(config, files, str(tmp_path)))
    assert len(solved) == 1
    assert both["label_solve", 10, "krr"] == by_name(first)["label_solve", 10, "krr"]
    assert both["initial", 10, "krr"]["mean"] < both["label_solve", 10, "krr"]["mean"]
    content = json.loads((tmp_path / "transfer.json").read_text())
    content["rows"] = [row for row in content["rows"] if row["set"] != "label_solve"]
    (tmp_path / "transfer.json").write_text(json.dumps(content))
    again = by_name(transfer_file(config, files, str(tmp_path)))
    assert len(solved) == 2
    assert again["label_solve", 10, "krr"]["mean"] == both["label_solve", 10, "krr"]["mean"]


def test_accuracies_on_validation_images_are_called_so(files, tmp_path, quick_kernels, capsys):
    config = make_config(networks=("krr",), baselines=())
    config.dataset.validation, config.eval.num_test = 0.2, 0
    transfer_file(config, files, str(tmp_path))
    output = capsys.readouterr().out
    assert re.search(r"held out, 28\d validation images", output)  # A fifth of 1438.
    assert "krr on 10 distilled: validation accuracy" in output
    assert "test accuracy" not in output


def test_baselines_do_not_see_the_held_out_images(digits):
    real = Targets(digits.train_images, digits.train_labels, 10)
    import jax

    pool, held = sets.hold_out(real, 0.1, jax.random.key(0))
    assert len(held.labels) == round(0.1 * len(real.labels))
    assert len(pool.labels) + len(held.labels) == len(real.labels)
    counts = np.bincount(held.labels)
    assert counts.max() - counts.min() <= 1
    together = np.sort(np.concatenate([pool.images, held.images]).reshape(len(real.labels), -1), 0)
    assert np.array_equal(together, np.sort(real.images.reshape(len(real.labels), -1), 0))


@pytest.mark.parametrize("name", ["herding", "herding_unit"])
def test_a_coreset_that_a_small_class_cannot_fill_is_refused(name):
    """A smaller set among the others would have a size group of its own, and always win it."""
    labels = np.array([0] * 9 + [1] * 3)
    images = np.random.default_rng(0).standard_normal((12, 4, 4, 1)).astype(np.float32)
    pool = Targets(images, labels, 2)
    assert sets.chosen(name, pool, 6).size == 6
    with pytest.raises(UserError, match=rf"^{name} takes 4 images of every class, and one has"):
        sets.chosen(name, pool, 8)


def test_a_diverging_training_is_reported_after_the_others(
    files, tmp_path, quick_kernels, capsys, monkeypatch
):
    config = make_config(networks=("fc:1", "krr"), lr_factor=(1e4,), ladder=(10, 20))
    message = r"fc:1 on 10 distilled, fc:1 on 10 random, .*: the training diverged.*10000"
    with pytest.raises(UserError, match=message) as caught:
        transfer_file(config, files, str(tmp_path))
    assert "\n" not in str(caught.value)
    rows = json.loads((tmp_path / "transfer.json").read_text())["rows"]
    assert [(row["network"], row["size"]) for row in rows] == [("krr", n) for n in (10, 10, 20)]
    table = capsys.readouterr().out.split("fc:1      krr")[-1]
    assert f"10 distilled  diverged  {100 * rows[0]['mean']:.2f}" in table
    assert "krr: 10 images are worth" in table
    assert "fc:1: 10 images" not in table
    assert (tmp_path / "worth.png").stat().st_size > 1000
    # Asked for again, nothing is trained again.
    monkeypatch.setattr(contest.rows, "krr_row", None)
    monkeypatch.setattr(contest.rows, "network_row", None)
    with pytest.raises(UserError, match=message):
        transfer_file(config, files, str(tmp_path))


def test_another_transfer_in_the_folder_is_refused(files, tmp_path):
    transfer_file(make_config(networks=("fc:1",)), files, str(tmp_path))
    with pytest.raises(UserError, match=r"another transfer: transfer.seeds was 3 and is now 2"):
        transfer_file(make_config(seeds=2), files, str(tmp_path))
    first = str(Path(files).with_name(NAME.format(0)))
    with pytest.raises(UserError, match=r"another transfer: distilled set \(checksum\)"):
        transfer_file(make_config(networks=("fc:1",)), first, str(tmp_path))


def test_the_initial_images_of_label_solve_lie_under_the_name_of_natural_labels(files, tmp_path):
    last = "FC1_ssize10_nozca_l_noaug_ckpt1.npz"
    shutil.copy(files, tmp_path / last)
    natural = Path(files).with_name(NAME.format(0))
    shutil.copy(natural, tmp_path / "FC1_ssize10_nozca_nol_noaug_ckpt0.npz")
    found = sets.initial(str(tmp_path / last))
    np.testing.assert_array_equal(found.images[0], export.load_distilled(natural).images)


@pytest.mark.parametrize(
    ("algorithm", "init", "natural"),
    [
        ("kip_newton", "real", True),
        ("frepo", "real", True),
        ("kip", "real", False),
        ("kip_newton", "set.npz", False),
        ("frepo", "set.npz", False),
    ],
)
def test_initial_images_that_were_drawn_have_natural_labels(tmp_path, algorithm, init, natural):
    """Gauss-Newton solves for labels at step 0 too, FRePo scales them; those of a file stay."""
    classes, labels = [2, 0, 1], np.eye(3, dtype=np.float32)
    fields = {"algorithm": algorithm, "support.learn_labels": True, "support.init": init}
    made = {"config": fields, "first_classes": classes}
    fitted = preprocess.fit("none", np.zeros((1, 4, 4, 1), np.uint8))
    description = export.Description(fitted, tuple("abc"), provenance=made)
    images = np.zeros((3, 4, 4, 1), np.float32)
    export.write_distilled(tmp_path / "set_ckpt0.npz", images, labels, description)
    found = sets.initial(str(tmp_path / "set_ckpt9.npz")).labels[0]
    expected = np.eye(3)[classes] - 1 / 3 if natural else labels
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_mistakes_are_reported_in_one_line(files, tmp_path, digits, quick_kernels):
    rows = np.arange(10)
    pixels = np.zeros((10, 6, 8, 1), np.float32)
    other = write(tmp_path / "other_ckpt1.npz", digits, rows, images=pixels)
    lonely = shutil.copy(files, tmp_path / NAME.format(7))
    nameless = shutil.copy(files, tmp_path / "set.npz")
    for changes, path, message in (
        ({}, other, "has images of 6x8x1, digits has 8x8x1"),
        ({"networks": ("vgg11_bn",)}, files, "8x8 pixels are too small for vgg11_bn"),
        ({"networks": ("convnet:4",)}, files, "8x8 pixels are too small for 4 pooling layers"),
        ({"baselines": ("initial",)}, lonely, "the initial images .*_ckpt0.npz are not there"),
        ({"baselines": ("label_solve",)}, nameless, "does not end in _ckptSTEP.npz"),
        ({"ladder": (5000,)}, files, "5000 real images are asked for and 1294 are not held out"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            transfer_file(make_config(**changes), str(path), str(tmp_path / "run"))
        assert "\n" not in str(caught.value)


def test_other_data_in_the_same_folder_are_refused(files, tmp_path, digits, monkeypatch):
    config = make_config(networks=("fc:1",), num_steps=1, every_steps=1)
    transfer_file(config, files, str(tmp_path))
    other = dataclasses.replace(digits, train_images=255 - digits.train_images)
    monkeypatch.setattr(setup, "load", lambda _: other)
    with pytest.raises(UserError, match=r"another transfer: data \(checksum\)"):
        transfer_file(config, files, str(tmp_path))
    other = dataclasses.replace(digits, test_images=255 - digits.test_images)
    with pytest.raises(UserError, match=r"another transfer: test images \(checksum\)"):
        transfer_file(config, files, str(tmp_path))
    table = json.loads((tmp_path / "transfer.json").read_text())
    del table["tests"]  # As of older versions: from now on it is known.
    (tmp_path / "transfer.json").write_text(json.dumps(table))
    transfer_file(config, files, str(tmp_path))
    monkeypatch.setattr(setup, "load", lambda _: digits)
    with pytest.raises(UserError, match=r"another transfer: test images \(checksum\)"):
        transfer_file(config, files, str(tmp_path))
