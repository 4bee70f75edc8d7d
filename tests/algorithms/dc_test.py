"""DC and DSA as whole runs, and what they refuse."""

import dataclasses

import numpy as np
import pytest
from whole_runs import artefacts, assert_same, small, stop_at

from kip_flax import config as config_lib
from kip_flax import data, export
from kip_flax.modes.train import mode as train
from kip_flax.runtime.errors import UserError


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
    options = {"algorithm": "dsa", "matching__augment": "crop,scale"}
    config = matching(num_steps=1, eval__steps=(), **options)
    other = train.train_and_evaluate(config, str(tmp_path / "dsa"))
    moved = np.abs(np.asarray(other.images) - np.asarray(state.images)).max()
    assert moved > 1e-4
    saved = matching().to_dict()
    with pytest.raises(UserError, match=r"algorithm was 'dc' and is now 'dsa'"):
        config_lib.check_same_experiment(saved, config, "runs/a")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"support__learn_labels": True}, "gradient matching learns images alone"),
        ({"matching__augment": "flip"}, "DC does not augment: leave it empty"),
        ({"augment": "flip"}, "gradient matching augments as matching.augment says"),
        (
            {"support__init": "a.npz"},
            "begins with real images or noise: "
            "take one of real, kmeans, herding, herding_unit, noise",
        ),
        ({"algorithm": "dsa"}, "matching.augment is empty: DSA draws from it"),
        ({"matching__network": "vgg11_bn"}, "matching.network is 'vgg11_bn': take one of mlp"),
        ({"matching__outer_loops": 0}, "matching.outer_loops is 0: it must be at least 1"),
        ({"matching__learning_rate": 0.0}, "matching.learning_rate is 0.0: it must be above 0"),
        ({"matching__augment": "blur"}, "unknown augmentation 'blur'"),
    ],
)
def test_mistakes_of_gradient_matching_are_reported(fields, message):
    with pytest.raises(UserError, match=message) as caught:
        matching(**fields)
    assert "\n" not in str(caught.value)


def test_real_images_must_be_shared_by_the_classes():
    digits = data.load_dataset("digits")
    for size, message in ((25, "take 20"), (1400, "at most 139: take 1390")):
        with pytest.raises(UserError, match=message):
            config_lib.check_data(matching(batch_size=size), digits)
    with pytest.raises(UserError, match="8x8 pixels are too small for lenet"):
        config_lib.check_data(matching(matching__network="lenet"), digits)


def test_what_may_not_be_mirrored_is_refused():
    digits = data.load_dataset("digits")
    config = matching(algorithm="dsa", matching__augment="crop,flip")
    with pytest.raises(
        UserError, match=r"^matching\.augment mirrors images, and a mirror image in"
    ):
        config_lib.check_data(config, digits)
    config_lib.check_data(config, dataclasses.replace(digits, mirrorable=True))


def test_an_augmentation_that_moves_nothing_is_refused():
    config = matching(algorithm="dsa", matching__augment="nudge")
    with pytest.raises(UserError, match=r"^matching\.augment is 'nudge', which moves images of 8 "):
        config_lib.check_data(config, data.load_dataset("digits"))


def test_a_small_class_has_real_images_to_begin_with():
    """Others would make up for it, and be matched with gradients of the wrong class."""
    digits = data.load_dataset("digits")
    few = np.flatnonzero((digits.train_labels != 3) | (np.cumsum(digits.train_labels == 3) <= 2))
    small = dataclasses.replace(
        digits, train_images=digits.train_images[few], train_labels=digits.train_labels[few]
    )
    fields = {"batch_size": 20, "support__size": 30}
    with pytest.raises(UserError, match=r"support\.size is 30: .* at most 2: take 20, or"):
        config_lib.check_data(matching(**fields, support__init="real"), small)
    config_lib.check_data(matching(**fields, support__init="noise"), small)
    config_lib.check_data(matching(batch_size=20, support__size=20, support__init="real"), small)


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
