"""Recipes against the constants that are published."""

import dataclasses

import pytest

from configs import kip_digits
from kip_flax import config as config_lib
from kip_flax.networks import recipe
from kip_flax.networks.transfer_fields import OF_RECIPES
from kip_flax.runtime.errors import UserError


def test_the_published_recipe_is_the_notebooks():
    """Nguyen et al., NeurIPS 2021."""
    kip = recipe.make("kip", 10)
    expected = {
        **{"loss": "mse", "labels": "soft", "optimizer": "sgd", "rates": (1.0,), "relative": True},
        **{"l2s": (1e-3,), "num_steps": 5000, "batch_size": 100, "width": 1024, "momentum": 0.9},
        **{"schedule": "cosine", "warmup_steps": 0, "end_rate": 0, "average": 0, "augments": ()},
        **{"label_scale": 1, "centred": False, "scale_inputs": False},
    }
    assert {name: getattr(kip, name) for name in expected} == expected
    assert recipe.make("kip", 500, 1, True) == kip


@pytest.mark.parametrize(
    ("size", "channels", "mirrorable", "steps", "augments"),
    [
        (10, 1, False, 1000, ("crop", "scale", "rotate")),
        (256, 1, True, 1000, ("color", "crop", "cutout", "flip", "scale", "rotate")),
        (257, 3, True, 2000, ("color", "crop", "cutout", "flip", "scale", "rotate")),
        (500, 3, False, 2000, ("color", "crop", "cutout", "scale", "rotate")),
    ],
)
def test_dc_is_its_published_evaluation(size, channels, mirrorable, steps, augments):
    """VICO-UoE/DatasetCondensation, `evaluate_synset`: 1,000 epochs in batches of 256."""
    dc = recipe.make("dc", size, channels, mirrorable)
    assert (dc.num_steps, dc.batch_size, dc.augments, dc.augment_draw) == (
        *(steps, 256, augments, "one"),
    )
    assert (dc.loss, dc.labels, dc.optimizer, dc.momentum) == ("cross_entropy", "hard", "sgd", 0.9)
    assert (dc.rates, dc.relative, dc.l2s) == ((0.01,), False, (5e-4,))
    assert (dc.schedule, dc.end_rate, dc.average, dc.width) == ("drop", 0.1, 0, 128)


def test_frepo_is_its_published_evaluation():
    """Zhou et al., NeurIPS 2022, script/eval.py: steps by the number of images."""
    steps = {5: 1000, 10: 1000, 100: 2000, 500: 5000, 1000: 10_000, 5000: 40_000, 9999: 40_000}
    found = {n: recipe.make("frepo", n, 3, True) for n in steps}
    assert {n: one.num_steps for n, one in found.items()} == steps
    between = [recipe.make("frepo", n).num_steps for n in range(10, 501, 10)]
    assert between == sorted(set(between))  # It grows with every ten images.
    one = found[10]
    assert (one.optimizer, one.rates, one.relative, one.l2s) == ("adam", (3e-4,), False, (0,))
    assert (one.warmup_steps, one.end_rate, one.average, one.batch_size) == (500, 0.01, 0.995, 500)
    assert (one.loss, one.labels, one.schedule, one.width) == ("mse", "soft", "cosine", 128)
    assert one.augments == ("flip", "color", "crop", "rotate", "shift", "cutout")
    assert one.augment_draw == "one"
    assert "flip" not in recipe.make("frepo", 10, 1, False).augments


def test_a_warm_up_must_fit_the_set_that_it_is_for():
    changes = {"warmup_steps": 1000, "networks": ("mlp",), "augment": None, "recipe": "frepo"}
    assert recipe.make("frepo", 500, changes=changes).warmup_steps == 1000
    assert recipe.resolved(changes)["transfer.warmup_steps"] == 1000
    with pytest.raises(UserError, match=r"warmup_steps is 1000 of 1000 steps"):
        recipe.make("frepo", 10, changes=changes)
    config = kip_digits.get_config()
    config.transfer.recipe, config.transfer.warmup_steps = "frepo", 1000
    config_lib.validate(config)


def test_auto_takes_half_of_frepos_steps_and_flips_what_may_be_flipped():
    auto = recipe.make("auto", 100, 3, True)
    assert (auto.num_steps, auto.batch_size, auto.width) == (1000, 500, 128)
    assert "flip" in auto.augments
    assert auto.label_scale == 8
    # All images in each step while they are few: the cost of a training grows with both.
    batches = {10: 500, 250: 500, 251: 125, 500: 125, 5000: 125}
    assert {size: recipe.make("auto", size, 3, True).batch_size for size in batches} == batches
    assert recipe.make("auto", 500, 3, True, {"batch_size": 500}).batch_size == 500
    assert recipe.make("auto", 100, 3, True, {"loss": "cross_entropy"}).label_scale == 1
    digits = recipe.make("auto", 100, 1, False)
    assert (digits.augments, digits.augment_draw) == (("scale", "rotate"), "one")


# A value of each field of `transfer` that no recipe has, and the attribute that it is.
FIELDS = {
    "width": (7, "width", 7),
    "loss": ("cross_entropy", "loss", "cross_entropy"),
    "labels": ("hard", "labels", "hard"),
    "augment": ("scale,crop_rotate", "augments", ("scale", "crop_rotate")),
    "augment_draw": ("one", "augment_draw", "one"),
    "optimizer": ("lamb", "optimizer", "lamb"),
    "learning_rate": ((0.5, 2), "rates", (0.5, 2)),
    "lr_factor": ((0.5, 2), "rates", (0.5, 2)),
    "l2": ((0.0, 0.5), "l2s", (0.0, 0.5)),
    "num_steps": (77, "num_steps", 77),
    "batch_size": (3, "batch_size", 3),
    "momentum": (0.5, "momentum", 0.5),
    "schedule": ("drop", "schedule", "drop"),
    "warmup_steps": (7, "warmup_steps", 7),
    "end_rate": (0.5, "end_rate", 0.5),
    "average": (0.5, "average", 0.5),
    "label_scale": (2.0, "label_scale", 2.0),
    "centred": (True, "centred", True),
    "scale_inputs": (False, "scale_inputs", False),
    "choice_steps": (7, "choice_steps", 7),
}


@pytest.mark.parametrize("name", OF_RECIPES)
def test_every_field_takes_the_place_of_the_recipes(name):
    value, attribute, expected = FIELDS[name]
    plain = recipe.make("auto", 10, 3, True)
    changed = recipe.make("auto", 10, 3, True, {"momentum": None, "seeds": 3, name: value})
    assert getattr(changed, attribute) == expected != getattr(plain, attribute)
    if name == "lr_factor":
        assert changed.relative
        assert changed.optimizer == "sgd"
    elif name == "loss":
        assert changed.label_scale == 1  # Of probabilities.
    elif name not in ("num_steps", "choice_steps"):  # What follows from the number of steps.
        assert dataclasses.replace(changed, **{attribute: getattr(plain, attribute)}) == plain


def test_a_warm_up_shrinks_with_steps_that_are_given():
    assert recipe.make("frepo", 10, changes={"num_steps": 300}).warmup_steps == 150
    assert recipe.make("frepo", 10, changes={"num_steps": 3000}).warmup_steps == 500
    short = recipe.make("frepo", 10, changes={"choice_steps": 100}).choosing()
    assert (short.num_steps, short.warmup_steps) == (100, 50)


def test_equal_trainings_have_equal_descriptions():
    fields = dict.fromkeys(OF_RECIPES) | {"recipe": "kip"}
    kip = recipe.resolved(fields)
    assert kip == recipe.resolved(fields | {"l2": (1e-3,), "num_steps": 5000, "width": 1024})
    assert kip["transfer.lr_factor"] == (1.0,)
    assert "transfer.learning_rate" not in kip
    assert "transfer.choice_steps" not in kip  # Nothing is chosen.
    frepo = recipe.resolved(fields | {"recipe": "frepo"})
    assert frepo["transfer.num_steps"] == [1000, 2000, 40_000]
    changed = {name for name in frepo if kip.get(name) != frepo[name]}
    assert {"transfer.learning_rate", "transfer.augment", "transfer.average"} < changed
    assert recipe.resolved(fields | {"l2": (0, 1)}) != recipe.resolved(
        fields | {"l2": (0, 1), "choice_steps": 9}
    )
