"""Facts about data sets, and a data set of one's own: one file, found by its dotted name."""

import numpy as np
import pytest
from dataset_checks import fails
from whole_runs import result, small

from kip_flax import config as config_lib
from kip_flax import preprocess
from kip_flax.data import load_dataset, sets
from kip_flax.modes.train import mode as train

STRIPES = """
import numpy as np

from kip_flax.data.source import Facts, Source

NEEDS_FILES = False
FACTS = {"mine.stripes": Facts("STRIPES")}


def read(name, root, image_size):
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 10
    images = rng.integers(0, 90, (200, image_size, image_size, 1)).astype(np.uint8)
    images[np.arange(200), labels % image_size] += 120
    return Source((root, root), (images, labels), None, tuple("abcdefghij"))
"""


@pytest.fixture
def stripes(own_module):
    return own_module("stripes", STRIPES)


def test_a_data_set_of_ones_own_is_read_and_distilled(stripes, quick_kernels, tmp_path):
    assert sets.facts(stripes) == sets.Facts()  # Not asked before it is imported.
    data = load_dataset(stripes, image_size=10, test_fraction=0.25)
    assert (data.name, data.image_shape, data.class_names[9]) == (stripes, (10, 10, 1), "j")
    assert (len(data.train_labels), len(data.test_labels)) == (150, 50)
    assert sets.field_name(stripes) == "STRIPES"
    config = small(dataset__name=stripes, dataset__image_size=10, eval__num_test=0)
    config_lib.validate(config)
    train.train_and_evaluate(config, str(tmp_path / "run"))
    run_result = result(tmp_path / "run")
    assert run_result["data"]["name"] == stripes
    assert run_result["evaluations"][-1]["accuracy"] > 0.9


def test_mistakes_in_naming_a_data_set_are_reported(own_module):
    known = "digits, mnist, fashion_mnist, cifar10, cifar100, svhn, folder, npz"
    for name in ("cifar", "mine.none", "nowhere.at_all"):
        message = f"dataset.name is {name!r}: take one of {known}, or a module of your own"
        fails(message, name=name)
        with pytest.raises(config_lib.UserError, match="or a module of your own"):
            config_lib.validate(small(dataset__name=name))
    fails("'mine.nothing', which has no read", name=own_module("nothing", ""))


def test_labels_of_ones_own_module_are_checked_before_a_part_is_held_out(own_module):
    uneven = STRIPES.replace("return Source(", "labels = labels[1:]\n    return Source(")
    assert uneven != STRIPES
    with pytest.raises(config_lib.UserError, match=r"\(199,\) for 200 images: one"):
        load_dataset(own_module("uneven", uneven), image_size=10)


def test_the_fields_moments_of_unknown_sets_are_the_fitted_ones():
    fitted = preprocess.fit("standard", np.arange(60, dtype=np.uint8).reshape(5, 2, 2, 3))
    field = sets.field_preprocess("folder", fitted)
    np.testing.assert_array_equal(field.mean, fitted.mean)
    np.testing.assert_array_equal(field.std, fitted.std)
    assert field.name == "standard"
    assert sets.field_name("folder") == "folder"
    assert sets.field_preprocess("mnist", fitted).std.tolist() == [np.float32(0.3081)]


def test_digits_may_not_be_mirrored_and_photos_and_clothes_may():
    found = {name: sets.facts(name).mirrorable for name in sets.NAMES}
    assert found == {
        **dict.fromkeys(("digits", "mnist", "svhn"), False),
        **dict.fromkeys(("fashion_mnist", "cifar10", "cifar100"), True),
        **dict.fromkeys(("folder", "npz"), None),  # As the channels say.
    }
    assert not load_dataset("digits").mirrorable
