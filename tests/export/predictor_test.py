"""A set as a classifier, against neural_tangents in float64 and the run that made the set."""

import dataclasses
import json

import numpy as np
import pytest
from whole_runs import exact_kernels, label_solve, small

from kip_flax import data, export, preprocess
from kip_flax.algorithms import base
from kip_flax.export import card, predictor
from kip_flax.modes.evaluate.mode import evaluate_file
from kip_flax.modes.train import mode as train
from kip_flax.runs import setup
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime.errors import UserError


def last_set(workdir):
    sets = RunFolder(workdir).distilled()
    return sets[max(sets)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    train.train_and_evaluate(small(num_steps=3), str(workdir))
    return last_set(workdir)


def rewritten(path, to, **changes):
    """A copy of the set with changed meta."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["meta"] = np.array(json.dumps(json.loads(str(arrays["meta"])) | changes))
    np.savez(to, **arrays)
    return to


def test_scores_are_those_of_kernel_ridge_regression(path, digits):
    pixels, labels = data.test_subset(digits, 60)
    found = export.load_distilled(path)
    x = preprocess.apply(preprocess.from_arrays(found.preprocess), pixels)
    k_ts, k_ss = exact_kernels(found.images, x)
    ridge = 1e-6 * np.trace(k_ss) / len(k_ss) * np.eye(len(k_ss))
    expected = k_ts @ np.linalg.solve(k_ss + ridge, found.labels)
    predictions = predictor.load(path).predict(pixels)
    np.testing.assert_allclose(predictions.scores, expected, atol=1e-4)
    assert predictions.classes.tolist() == expected.argmax(axis=1).tolist()
    assert predictions.names == [digits.class_names[number] for number in predictions.classes]
    ran = json.loads((path.parents[1] / "result.json").read_text())["evaluations"][-1]
    assert np.mean(predictions.classes == labels) == pytest.approx(ran["accuracy"], abs=1e-6)
    assert predictor.load(path).options == base.kernel_options(small())


def test_a_mirrored_kernel_counts_each_image_of_the_set_twice(digits, tmp_path, capsys):
    """A run on photographs, the evaluation of its set and the classifier, by float64 on twenty."""
    colour = {
        f"{part}_images": np.repeat(getattr(digits, f"{part}_images"), 3, axis=3)
        for part in ("train", "test")
    }
    labels = {"train_labels": digits.train_labels, "test_labels": digits.test_labels}
    np.savez(tmp_path / "mine.npz", **colour, **labels)
    config = small(num_steps=3, kernel__mirrored=True)
    config.dataset.name, config.dataset.data_dir = "npz", str(tmp_path / "mine.npz")
    config.batch_size, config.eval.num_test = 200, 300
    train.train_and_evaluate(config, str(tmp_path / "run"))
    ran = json.loads((tmp_path / "run" / "result.json").read_text())["evaluations"][-1]
    path = last_set(tmp_path / "run")
    assert evaluate_file(config, str(path)) == {key: ran[key] for key in ("accuracy", "mse")}

    found, dataset = export.load_distilled(path), setup.load(config)
    pixels, truth = data.test_subset(dataset, 300)
    x = preprocess.apply(preprocess.from_arrays(found.preprocess), pixels)
    k_ts, k_ss = exact_kernels(np.concatenate([found.images, found.images[:, :, ::-1]]), x)
    ridge = 1e-6 * (k_ss[:10, :10] + k_ss[:10, 10:]).trace() / 10 * np.eye(20)
    expected = k_ts @ np.linalg.solve(k_ss + ridge, np.concatenate([found.labels] * 2))
    scores = predictor.load(path).predict(pixels).scores
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert np.mean(expected.argmax(axis=1) == truth) == pytest.approx(ran["accuracy"], abs=1e-6)
    assert ", averaged over mirror images)" in (tmp_path / "run" / "report.html").read_text()
    assert "An image stands for its mirror image" in card.limits(found)
    capsys.readouterr()
    config.kernel.mirrored = False
    assert evaluate_file(config, str(path))["mse"] != pytest.approx(ran["mse"], rel=1e-3)
    said = f"The run of {path} measured with kernel.mirrored=True; here kernel.mirrored=False."
    assert said in capsys.readouterr().out


def test_the_kernel_of_the_file_is_taken(path, tmp_path):
    kernel = export.load_distilled(path).kernel | {"b_std": 0.3}
    assert predictor.load(rewritten(path, tmp_path / "o.npz", kernel=kernel)).options.b_std == 0.3


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        small(num_steps=3, kernel__kind="nngp", reg=0.1, preprocess="zca"),
        small(num_steps=3, kernel__parameterization="standard", kernel__width=64),
        label_solve(kernel__b_std=0.3),
    ],
    ids=["nngp", "standard", "ls"],
)
def test_the_file_alone_has_the_accuracy_of_the_run(config, tmp_path, digits):
    train.train_and_evaluate(config, str(tmp_path))
    evaluations = json.loads((tmp_path / "result.json").read_text())["evaluations"]
    pixels, labels = data.test_subset(digits, 60)
    loaded = predictor.load(last_set(tmp_path))
    assert loaded.options == base.kernel_options(config)
    share = np.mean(loaded.predict(pixels).classes == labels)
    assert share == pytest.approx(evaluations[-1]["accuracy"], abs=1e-6)
    assert share > 0.3


def test_many_pictures_are_predicted_in_parts(path, digits, monkeypatch):
    loaded = predictor.load(path)
    whole = loaded.predict(digits.test_images[:30]).scores
    monkeypatch.setattr(predictor, "_BATCH", 8)
    parts = predictor.load(path).predict(digits.test_images[:30, ..., 0])
    np.testing.assert_allclose(parts.scores, whole, atol=1e-5)
    assert loaded.predict(digits.test_images[:0]).names == []


def test_pictures_of_another_form_are_refused(path, digits):
    loaded = predictor.load(path)
    with pytest.raises(UserError, match=r"float32 \(2, 8, 8, 1\): the set takes uint8"):
        loaded.predict(digits.test_images[:2].astype(np.float32))
    with pytest.raises(UserError, match=r"the set takes uint8 \(n, 8, 8, 1\)"):
        loaded.predict(digits.test_images[:2, :4])


def test_files_that_cannot_predict_say_what_they_lack(path, tmp_path):
    other = tmp_path / "other.npz"
    found = export.load_distilled(path)
    np.savez(other, images=found.images, labels=found.labels)
    with pytest.raises(UserError, match=r"other\.npz has no preprocessing to predict with"):
        predictor.load(other)
    with pytest.raises(UserError, match=r"other\.npz has no kernel to predict with"):
        predictor.load(rewritten(path, other, kernel={}))
    with pytest.raises(UserError, match="does not say its ridge"):
        predictor.load(rewritten(path, other, provenance={}))
    with pytest.raises(UserError, match=r"does not read \(.*wobble"):
        predictor.load(rewritten(path, other, kernel={**found.kernel, "wobble": 1}))
    with pytest.raises(UserError, match=r"missing\.npz"):
        predictor.load(tmp_path / "missing.npz")


def test_a_set_whose_kernel_is_singular_here_is_refused(path, digits):
    loaded = dataclasses.replace(predictor.load(path), reg=-1.0)
    with pytest.raises(UserError, match=r"not positive definite here .* make the set again"):
        loaded.predict(digits.test_images[:2])


def test_a_file_runs_no_code_of_the_module_that_it_names(path, tmp_path, own_module):
    name = own_module("loud", "raise SystemExit")
    other = rewritten(path, tmp_path / "other.npz", kernel={"architecture": name, "depth": 1})
    with pytest.raises(UserError, match=r"architecture 'mine\.loud', a module of its own"):
        predictor.load(other)
