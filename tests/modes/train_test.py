"""Whole runs on the digits; the kernel compiles at once (`configs_test` takes real ones)."""

import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_kernel
from whole_runs import (
    STEPS,
    artefacts,
    assert_same,
    label_solve,
    result,
    small,
)

from kip_flax import data, export, preprocess
from kip_flax.modes.evaluate import mode as evaluate_mode
from kip_flax.modes.train import mode as train
from kip_flax.runs import evaluate
from kip_flax.runtime.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_kernels")


def test_a_run_learns_and_leaves_its_artefacts(undisturbed):
    workdir, state = undisturbed
    names = [f"FC1_ssize10_nozca_l_aug_ckpt{step}.npz" for step in (0, 5, STEPS)]
    assert sorted(artefacts(workdir)) == sorted([*names, "index.csv"])
    run_result = result(workdir)
    first, _, last = run_result["evaluations"]
    assert run_result["status"] == "finished"
    assert [row["step"] for row in run_result["evaluations"]] == [0, 5, STEPS]
    assert last["accuracy"] > first["accuracy"] + 0.05
    assert last["mse"] < first["mse"]
    assert run_result["step_ms"] > 0
    assert run_result["hardware"].startswith("4 x cpu")
    with open(workdir / "distilled" / "index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["ckpt"]) for row in rows] == [0, 5, STEPS]
    assert float(rows[2]["test_acc"]) == pytest.approx(last["accuracy"], rel=1e-5)
    distilled = export.load_distilled(workdir / "distilled" / names[2])
    images, labels = state.support
    np.testing.assert_array_equal(distilled.images, images)
    np.testing.assert_array_equal(distilled.labels, labels)
    assert (workdir / "images.png").stat().st_size > 1000
    assert list((workdir / "metrics").glob("events.out.tfevents.*"))
    assert json.loads((workdir / "config.json").read_text())["batch_size"] == 30


@pytest.mark.parametrize("workdir", ["pictures", "pictures/run", "pictures/a/../run"])
def test_a_workdir_among_the_pictures_is_refused_before_it_is_made(tmp_path, workdir):
    (tmp_path / "pictures" / "a").mkdir(parents=True)
    config = small(dataset__name="folder", dataset__data_dir=str(tmp_path / "pictures"))
    with pytest.raises(UserError, match=r"whose folders are the classes: take another --workdir"):
        train.train_and_evaluate(config, str(tmp_path / workdir))
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["a"]


def test_the_folder_of_an_npz_is_no_workdir(tmp_path):
    """The run would leave a second npz there, and would not find its data again."""
    np.savez(tmp_path / "mine.npz", images=np.zeros((4, 8, 8), np.uint8), labels=[0, 1, 0, 1])
    config = small(dataset__name="npz", dataset__data_dir=str(tmp_path))
    with pytest.raises(UserError, match=r"holds the data, .* take another --workdir"):
        train.train_and_evaluate(config, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.npz"]


def test_the_start_is_a_balanced_draw_of_real_images_in_order_of_class(undisturbed):
    workdir, _ = undisturbed
    distilled = export.load_distilled(workdir / "distilled" / "FC1_ssize10_nozca_l_aug_ckpt0.npz")
    np.testing.assert_allclose(distilled.labels, np.eye(10) - 0.1, atol=1e-7)
    digits = data.load_dataset("digits")
    fitted = preprocess.fit("standard", digits.train_images)
    train_images = preprocess.apply(fitted, digits.train_images)
    for number, image in enumerate(distilled.images):
        same = np.abs(train_images - image).max(axis=(1, 2, 3)) == 0
        assert number in digits.train_labels[same]


def test_a_run_takes_a_set_further_with_its_preprocessing(
    undisturbed, tmp_path, monkeypatch, capsys
):
    workdir, _ = undisturbed
    path = workdir / "distilled" / f"FC1_ssize10_nozca_l_aug_ckpt{STEPS}.npz"
    digits = data.load_dataset("digits")
    darker = dataclasses.replace(digits, train_images=digits.train_images // 2)
    monkeypatch.setattr(data, "load_dataset", lambda *_, **__: darker)  # Of the same test images.
    train.train_and_evaluate(small(support__init=str(path), num_steps=2), str(tmp_path))
    before, after = result(workdir)["evaluations"][-1], result(tmp_path)["evaluations"]
    assert after[0]["accuracy"] == pytest.approx(before["accuracy"], abs=1e-7)
    assert after[0]["mse"] == pytest.approx(before["mse"], rel=1e-5)
    assert after[-1]["mse"] != after[0]["mse"]
    train.train_and_evaluate(small(support__init=str(path), num_steps=4), str(tmp_path))
    assert result(tmp_path)["evaluations"][0] == after[0]
    assert "measured with" not in capsys.readouterr().out
    fields = {"support__init": str(path), "num_steps": 1, "kernel__b_std": 0.2}
    train.train_and_evaluate(small(**fields), str(tmp_path / "other"))
    assert "measured with kernel.b_std=0.1; here kernel.b_std=0.2." in capsys.readouterr().out


@pytest.mark.parametrize("then", ["gone", "another", "killed before the first result"])
def test_a_run_goes_on_without_the_file_that_it_began_from(undisturbed, tmp_path, then):
    path = tmp_path / "set.npz"
    known = export.load_distilled(
        undisturbed[0] / "distilled" / f"FC1_ssize10_nozca_l_aug_ckpt{STEPS}.npz"
    )
    classes = list(range(10))[::-1]  # Unlike the largest labels.
    fitted = preprocess.from_arrays(known.preprocess)
    description = export.Description(
        fitted, known.class_names, provenance={"first_classes": classes}
    )
    export.write_distilled(path, known.images, known.labels, description)
    whole, parts = (str(tmp_path / name) for name in ("whole", "parts"))
    state = train.train_and_evaluate(small(support__init=str(path), num_steps=4), whole)
    train.train_and_evaluate(small(support__init=str(path), num_steps=2), parts)
    if then == "gone":
        path.unlink()
    elif then == "another":
        np.savez(path, images=known.images[:5], labels=known.labels[:5])
    else:
        (tmp_path / "parts" / "result.json").unlink()
    found = train.train_and_evaluate(small(support__init=str(path), num_steps=4), parts)
    assert_same(found, state)
    last = "FC1_ssize10_nozca_l_noaug_ckpt4.npz"
    assert artefacts(tmp_path / "parts")[last] == artefacts(tmp_path / "whole")[last]
    pictures = [(tmp_path / name / "images.png").read_bytes() for name in ("whole", "parts")]
    assert pictures[0] == pictures[1]
    own = export.load_distilled(tmp_path / "parts" / "distilled" / last)
    assert own.first_classes.tolist() == classes != own.labels.argmax(axis=1).tolist()
    if message := {"gone": "does not exist", "another": "holds 5 images"}.get(then):
        with pytest.raises(UserError, match=rf"set\.npz {message}"):
            train.train_and_evaluate(small(support__init=str(path)), str(tmp_path / "new"))


def test_a_picture_has_the_labels_of_the_file_although_step_0_has_solved_ones(
    undisturbed, tmp_path
):
    path = undisturbed[0] / "distilled" / f"FC1_ssize10_nozca_l_aug_ckpt{STEPS}.npz"
    fields = {"algorithm": "kip_solve", "support__init": str(path)}
    train.train_and_evaluate(small(**fields, num_steps=2), str(tmp_path / "whole"))
    for steps in (1, 2):
        train.train_and_evaluate(small(**fields, num_steps=steps), str(tmp_path / "parts"))
    pictures = [(tmp_path / name / "images.png").read_bytes() for name in ("whole", "parts")]
    assert pictures[0] == pictures[1]
    first, *_ = sorted((tmp_path / "whole" / "distilled").glob("*_ckpt0.npz"))
    labels = [export.load_distilled(each).labels for each in (first, path)]
    assert np.abs(labels[0] - labels[1]).max() > 1e-3


def test_label_solve_is_the_closed_form_over_all_targets(tmp_path):
    config = label_solve(reg=1e-3)
    state = train.train_and_evaluate(config, str(tmp_path))
    assert state.step == 4  # 1,438 targets in tiles of 400.
    digits = data.load_dataset("digits")
    fitted = preprocess.fit("standard", digits.train_images)
    x_t = jnp.asarray(preprocess.apply(fitted, digits.train_images))
    y_t = np.eye(10)[digits.train_labels] - 0.1
    kernel = quick_kernel(None)
    k_ss = np.asarray(kernel(state.images, state.images), np.float64)
    k_st = np.asarray(kernel(state.images, x_t), np.float64)
    ridge = 1e-3 / 20 * np.eye(20)
    expected = (k_ss + ridge) @ np.linalg.solve(k_st @ k_st.T + ridge, k_st @ y_t)
    path = tmp_path / "distilled" / "FC1_ssize20_nozca_l_noaug_ckpt1.npz"
    np.testing.assert_allclose(export.load_distilled(path).labels, expected, rtol=1e-4, atol=1e-5)
    natural, solved = result(tmp_path)["evaluations"]
    assert solved["accuracy"] > natural["accuracy"] + 0.05
    assert (tmp_path / "distilled" / "FC1_ssize20_nozca_nol_noaug_ckpt0.npz").exists()


def test_a_mesh_larger_than_the_devices_is_refused(tmp_path):
    with pytest.raises(UserError, match="8 devices and there are 4"):
        train.train_and_evaluate(small(mesh__data=8), str(tmp_path))


def test_test_subset_is_used(undisturbed):
    workdir, state = undisturbed
    digits = data.load_dataset("digits")
    fitted = preprocess.fit("standard", digits.train_images)
    images, labels = data.test_subset(digits, 60)
    kernel = quick_kernel(None)
    measure = evaluate.make_evaluate(
        kernel, preprocess.apply(fitted, images), labels, reg=1e-6, batch_size=60
    )
    own = jax.device_get(state.support)
    assert measure(*own)["accuracy"] == pytest.approx(
        result(workdir)["evaluations"][-1]["accuracy"], abs=1e-7
    )


def test_validation_images_take_the_place_of_the_test_images(tmp_path, monkeypatch):
    digits = data.load_dataset("digits")
    nothing = dataclasses.replace(digits, test_images=np.zeros_like(digits.test_images))
    monkeypatch.setattr(data, "load_dataset", lambda *args, **kwargs: nothing)
    config = small(dataset__validation=0.2, num_steps=2, eval__steps=(2,), eval__num_test=0)
    state = train.train_and_evaluate(config, str(tmp_path))
    run_result = result(tmp_path)
    held = data.hold_out(digits, 0.2)
    assert run_result["evaluated_on"] == "validation"
    fitted = preprocess.fit("standard", digits.train_images)  # No label, no test image.
    measure = evaluate.make_evaluate(
        quick_kernel(None),
        preprocess.apply(fitted, held.test_images),
        held.test_labels,
        reg=1e-6,
        batch_size=100,
    )
    accuracy = measure(*jax.device_get(state.support))["accuracy"]
    assert run_result["evaluations"][-1]["accuracy"] == pytest.approx(accuracy, abs=1e-7)
    (path,) = (tmp_path / "distilled").glob("*_ckpt2.npz")
    provenance = export.load_distilled(path).meta["provenance"]
    assert provenance["validation_accuracy"] == run_result["evaluations"][-1]["accuracy"]
    assert "test_accuracy" not in provenance
    with open(tmp_path / "distilled" / "index.csv", newline="") as file:
        assert [row["test_acc"] for row in csv.DictReader(file)] == ["", ""]


def test_a_run_of_some_classes(tmp_path):
    """Its set has these alone, and is refused where others are asked for."""
    config = small(dataset__classes=(8, 3, 5), support__size=6)
    train.train_and_evaluate(config, str(tmp_path))
    path = str(next((tmp_path / "distilled").glob(f"*_ckpt{STEPS}.npz")))
    distilled = export.load_distilled(path)
    assert distilled.class_names == ("8", "3", "5")
    assert distilled.labels.shape == (6, 3)
    measured = evaluate_mode.evaluate_file(config, path)["accuracy"]
    assert measured == pytest.approx(result(tmp_path)["evaluations"][-1]["accuracy"])
    others = small(dataset__classes=(8, 3, 1), support__size=6)
    with pytest.raises(UserError, match=r"classes 8, 3, 5, digits has 8, 3, 1: set .*classes"):
        evaluate_mode.evaluate_file(others, path)
