"""Algorithms by name: the page that says how to add one, and DC and DSA as whole runs."""

import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from whole_runs import artefacts, assert_same, result, small, stop_at

from kip_flax import algorithms, architectures, data, export, kernels, preprocess
from kip_flax import config as config_lib
from kip_flax.algorithms import base as tasks
from kip_flax.modes.train import mode as train
from kip_flax.runtime.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "adding-an-algorithm.md").read_text(encoding="utf-8")


def matching(**fields):
    """DC on a small network: two networks of two updates, few real images."""
    quick = {
        "algorithm": "dc",
        "support__learn_labels": False,
        "optimizer__name": "sgd",
        "optimizer__momentum": 0.5,
        "matching__network": "mlp",
        "matching__outer_loops": 2,
        "matching__inner_loops": 2,
        "num_steps": 4,
        "eval__steps": (2,),
        "checkpoint__every_steps": 1,
        "log__every_steps": 1,
    }
    config = small(**(quick | fields))
    config_lib.validate(config)
    return config


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The page's two files, in a folder that Python finds."""
    module, configuration = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "class_means.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield module, configuration
    for name in [name for name in sys.modules if name.startswith("mine")]:
        del sys.modules[name]


def test_the_example_of_the_page_runs_and_goes_on(example, quick_kernels, tmp_path):
    module, configuration = example
    assert len(module.splitlines()) <= 42
    names = {}
    exec(configuration, names)
    config = names["get_config"]()
    config.mesh.data, config.eval.num_test = 2, 60
    config.kernel.architecture, config.kernel.depth = "fc", 1
    config_lib.validate(config)
    state = train.train_and_evaluate(config, str(tmp_path / "whole"))
    told = result(tmp_path / "whole")["evaluations"]
    assert told[-1]["accuracy"] > told[0]["accuracy"] + 0.1
    # Twelve steps of half the way each: the means of the last batches, and near the whole means.
    digits = data.load_dataset("digits")
    fitted = preprocess.fit("standard", digits.train_images)
    pixels = preprocess.apply(fitted, digits.train_images)
    means = np.stack([pixels[digits.train_labels == c].mean(0) for c in range(10)])
    assert np.abs(np.asarray(state.support[0]) - means).mean() < 0.2
    config.num_steps = 5
    train.train_and_evaluate(config, str(tmp_path / "parts"))
    config.num_steps = 12
    assert_same(train.train_and_evaluate(config, str(tmp_path / "parts")), state)


def test_mistakes_in_naming_an_algorithm_are_told(example):
    for name, told in (
        (
            "gan",
            "algorithm is 'gan': take one of dc, dsa, kip, kip_newton, kip_solve, ls, or a module "
            "of your own",
        ),
        ("mine.none", "algorithm is 'mine.none': take one of"),
        ("nowhere.at_all", "algorithm is 'nowhere.at_all': take one of"),
        ("kip_flax.krr", "'kip_flax.krr', which has no init and no make_step"),
    ):
        with pytest.raises(UserError, match=told) as caught:
            algorithms.find(name)
        assert "\n" not in str(caught.value)
    config = small(algorithm="mine.class_means")
    with pytest.raises(UserError, match=r"config without the field means\.rate"):
        config_lib.validate(config)


def test_dc_goes_on_bit_identical_within_the_life_of_a_network(quick_kernels, tmp_path):
    expected = train.train_and_evaluate(matching(), str(tmp_path / "whole"))
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 2)
        state = train.train_and_evaluate(matching(), str(tmp_path / "cut"))
    assert state.step == 3  # A network's first update of two.
    assert_same(train.train_and_evaluate(matching(), str(tmp_path / "cut")), expected)
    assert artefacts(tmp_path / "cut") == artefacts(tmp_path / "whole")
    first, last = (
        export.load_distilled(tmp_path / "whole" / "distilled" / f"FC1_ssize10_nozca_nol_{name}")
        for name in ("noaug_ckpt0.npz", "noaug_ckpt4.npz")
    )
    np.testing.assert_array_equal(first.labels, last.labels)
    assert np.abs(first.images - last.images).max() > 1e-3
    assert last.meta["provenance"]["config"]["matching.outer_loops"] == 2


def test_dsa_is_dc_with_augmentation(quick_kernels, tmp_path):
    state = train.train_and_evaluate(matching(num_steps=1, eval__steps=()), str(tmp_path / "dc"))
    options = {"algorithm": "dsa", "matching__augment": "flip,scale"}
    config = matching(num_steps=1, eval__steps=(), **options)
    other = train.train_and_evaluate(config, str(tmp_path / "dsa"))
    moved = np.abs(np.asarray(other.images) - np.asarray(state.images)).max()
    assert moved > 1e-4
    saved = matching().to_dict()
    with pytest.raises(UserError, match=r"algorithm was 'dc' and is now 'dsa'"):
        config_lib.check_same_experiment(saved, config, "runs/a")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"support__learn_labels": True}, "gradient matching learns images alone"),
        ({"matching__augment": "flip"}, "DC does not augment: leave it empty"),
        ({"augment": "flip"}, "gradient matching augments as matching.augment says"),
        ({"support__init": "a.npz"}, "begins with real images or noise: take one of real, noise"),
        ({"algorithm": "dsa"}, "matching.augment is empty: DSA draws from it"),
        ({"matching__network": "vgg11_bn"}, "matching.network is 'vgg11_bn': take one of mlp"),
        ({"matching__outer_loops": 0}, "matching.outer_loops is 0: it must be at least 1"),
        ({"matching__learning_rate": 0.0}, "matching.learning_rate is 0.0: it must be above 0"),
        ({"matching__augment": "blur"}, "unknown augmentation 'blur'"),
    ],
)
def test_mistakes_of_gradient_matching_are_told(fields, told):
    with pytest.raises(UserError, match=told) as caught:
        matching(**fields)
    assert "\n" not in str(caught.value)


def test_real_images_must_be_shared_by_the_classes():
    digits = data.load_dataset("digits")
    for size, told in ((25, "take 20"), (1400, "at most 139: take 1390")):
        with pytest.raises(UserError, match=told):
            config_lib.check_data(matching(batch_size=size), digits)
    with pytest.raises(UserError, match="8x8 pixels are too small for lenet"):
        config_lib.check_data(matching(matching__network="lenet"), digits)


def test_the_published_loops_follow_from_the_images_per_class():
    from configs import dc_cifar100, dsa_mnist

    config = dc_cifar100.get_config("10")
    assert (config.support.size, config.num_steps, config.batch_size) == (1000, 10_000, 25_600)
    assert (config.matching.outer_loops, config.matching.inner_loops) == (10, 50)
    assert dsa_mnist.get_config().matching.augment == "color,crop,cutout,scale,rotate"
    with pytest.raises(ValueError, match="7 images per class have no published loops"):
        dc_cifar100.get_config("7")


def test_gradient_matching_decides_nothing_elsewhere():
    """A run of KIP from before these fields were there goes on."""
    assert not any(name.startswith("matching.") for name in config_lib.identity(small()))
    assert "matching.network" in config_lib.identity(matching())


@pytest.mark.parametrize(("reg", "few"), [(1e-6, 0), (0.1, 10_000), (1e-6, 50)])
def test_kip_solve_gives_its_images_the_best_labels_for_its_ridge(
    quick_kernels, tmp_path, reg, few
):
    config = small(algorithm="kip_solve", num_steps=6, eval__steps=(3,), eval__num_test=0, reg=reg)
    config.eval.label_targets = few
    state = train.train_and_evaluate(config, str(tmp_path))
    digits = data.load_dataset("digits")
    rows = np.arange(len(digits.train_labels))
    if few == 50:
        key = jax.random.fold_in(tasks.keys(config)[1], 1)
        rows = data.balanced_draw(digits.train_labels, few, 10, key)
    fitted = preprocess.fit("standard", digits.train_images)
    x = preprocess.apply(fitted, digits.train_images[rows])
    y = np.eye(10)[digits.train_labels[rows]] - 0.1
    kernel = kernels.make_kernel(architectures.fc(1), implementation="neural_tangents")
    (path,) = (tmp_path / "distilled").glob("*_l_*ckpt6.npz")
    distilled = export.load_distilled(path)
    np.testing.assert_array_equal(distilled.images, state.params["images"])
    k_ts, k_ss = (
        np.asarray(kernel(a.astype(float), distilled.images.astype(float)))
        for a in (x, distilled.images)
    )
    k_reg = k_ss + reg * np.trace(k_ss) / 10 * np.eye(10)
    ridge = np.sqrt(reg / 10) * np.eye(10)
    rows_of_ridge = np.concatenate([k_ts, ridge]), np.concatenate([y, np.zeros((10, 10))])
    best = k_reg @ np.linalg.lstsq(*rows_of_ridge, rcond=None)[0]
    np.testing.assert_allclose(distilled.labels, best, rtol=1e-2, atol=1e-2)
    first, _, last = result(tmp_path)["evaluations"]
    assert last["accuracy"] > first["accuracy"]
    assert last["mse"] < first["mse"]


def test_kip_solve_goes_on_to_the_same_bits(quick_kernels, tmp_path, monkeypatch):
    config = small(algorithm="kip_solve", num_steps=6, eval__steps=(3,))
    whole = train.train_and_evaluate(config, str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        train.train_and_evaluate(config, str(tmp_path / "parts"))
    parts = train.train_and_evaluate(config, str(tmp_path / "parts"))
    assert_same(parts, whole)
    assert artefacts(tmp_path / "parts") == artefacts(tmp_path / "whole")


def test_kip_solve_does_not_take_fixed_labels():
    with pytest.raises(UserError, match="kip_solve solves for the labels"):
        config_lib.validate(small(algorithm="kip_solve", support__learn_labels=False))


@pytest.mark.parametrize("name", ["kip_solve", "kip_newton"])
def test_labels_that_fit_a_whole_batch_are_refused(name):
    """As many images as targets: nothing would be left for the images to learn."""
    fields = {"algorithm": name, "support__size": 20}
    config_lib.validate(small(**fields, batch_size=21))
    with pytest.raises(UserError, match=r"batch_size is 20 and support\.size 20:") as caught:
        config_lib.validate(small(**fields, batch_size=20))
    assert "\n" not in str(caught.value)
    if name == "kip_newton":
        config_lib.validate(small(**fields, batch_size=20, support__learn_labels=False))
    config_lib.validate(small(**fields, eval__label_targets=21))
    with pytest.raises(
        UserError, match=r"eval\.label_targets is 20 and support\.size 20:"
    ) as caught:
        config_lib.validate(small(**fields, eval__label_targets=20))
    assert "\n" not in str(caught.value)
