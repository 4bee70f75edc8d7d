"""The fields of a configuration and their defaults; every mistake gets its one line."""

import importlib
import importlib.machinery
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from made_configs import changed
from ml_collections import ConfigDict, config_flags

from configs import default
from kip_flax import algorithms, data
from kip_flax import config as config_lib
from kip_flax.algorithms.interface import Facts
from kip_flax.config import FIELDS
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.fields import Section

ROOT = Path(__file__).resolve().parent.parent


def dataset(train_size=40, side=8, classes=10):
    labels = np.arange(train_size, dtype=np.int32) % classes
    images = np.zeros((train_size, side, side, 1), np.uint8)
    names = tuple(map(str, range(classes)))
    return data.Dataset("digits", images, labels, images, labels, names)


def test_default_holds_every_field_with_its_type():
    config = default.get_config()
    flat = config_lib.flatten(config)
    optional = {name for section in config_lib.SECTIONS for name in section.optional}
    assert {name for name, value in flat.items() if value is None} == optional
    with config.unlocked():  # A placeholder tells its type.
        kinds = {name: config.transfer.get_ref(name[9:]).get_type() for name in optional}
    assert {name: type(value) for name, value in flat.items()} | kinds == FIELDS


def test_every_default_is_commented():
    lines = (ROOT / "configs" / "default.py").read_text().splitlines()
    fields = [i for i, line in enumerate(lines) if re.match(r"    config\.[\w.]+ = (?!Conf)", line)]
    assert len(fields) == len(FIELDS)
    assert all(lines[i - 1].strip().startswith("#") for i in fields)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "algorithm",
            "gan",
            "algorithm is 'gan': take one of bptt, dc, dp_kip, dsa, frepo, kip, kip_newton, "
            "kip_solve, ls, ls_cross_entropy, rfad",
        ),
        ("dataset__name", "imagenet", "dataset.name is 'imagenet': take one of digits, mnist"),
        ("kernel__architecture", "vgg", "kernel.architecture is 'vgg': take one of fc, conv"),
        ("kernel__implementation", "cuda", "kernel.implementation is 'cuda': take one of auto"),
        ("kernel__kind", "rbf", "kernel.kind is 'rbf': take one of"),
        ("kernel__depth", 0, "kernel.depth"),
        ("preprocess", "pca", "preprocess is 'pca': take one of none, centred, standard"),
        ("augment", "blur", "blur"),
        ("support__size", 0, "support.size is 0: it must be at least 1"),
        (
            "support__init",
            "zeros",
            "support.init is 'zeros': take one of real, kmeans, herding, herding_unit, noise, or",
        ),
        ("optimizer__name", "lion", "optimizer.name is 'lion': take one of adam, lamb, sgd"),
        ("optimizer__learning_rate", 0.0, "optimizer.learning_rate is 0.0: it must be above 0"),
        ("optimizer__learning_rate", float("nan"), "learning_rate is nan: it must be above 0"),
        ("dataset__test_fraction", 1.0, "between 0 and 1"),
        ("dataset__validation", 1.0, "at least 0 and below 1"),
        ("eval__steps", (3, -1), r"eval.steps is \(3, -1\)"),
        ("eval__steps", ("3",), r"eval.steps is \('3',\)"),
        ("eval__networks", ("krr:fc:1",), "eval.networks names 'krr:fc:1', which is no network"),
        ("frepo__network", "krr", "frepo.network names 'krr', which is no network but ker"),
        ("bptt__network", "vit", "bptt.network: unknown network 'vit': take one of"),
        ("eval__networks", ("vit",), "eval.networks: unknown network 'vit'"),
        ("eval__network_seeds", 0, "eval.network_seeds is 0: it must be at least 1"),
        ("checkpoint__every_steps", 0, "checkpoint.every_steps is 0: it must be at least 1"),
        ("reg", -1.0, "reg is -1.0: it must be at least 0"),
        ("reg", float("inf"), "reg is inf: it must be a finite number"),
        ("seed", 2**32, "seed is 4294967296: it must be at most 4294967295"),
        ("privacy__noise_seed", 2**32, "privacy.noise_seed is 4294967296: it must be at most"),
        ("transfer__loss", "hinge", "transfer.loss is 'hinge': take one of mse, cross_entropy"),
        ("transfer__labels", "fuzzy", "transfer.labels is 'fuzzy': take one of soft, hard"),
        ("transfer__augment_draw", "some", "transfer.augment_draw is 'some': take one of all, one"),
        ("transfer__networks", ("vit",), "unknown network 'vit': take one of kernel, fc"),
        ("transfer__networks", ("myrtle:6",), "myrtle has depth 5, 7 or 10, not 6"),
        ("transfer__networks", (), "transfer.networks is empty"),
        ("transfer__augment", "blur", "blur"),
        (
            "transfer__lr_factor",
            (0.1, 0),
            r"transfer.lr_factor is \(0.1, 0\): write numbers above 0",
        ),
        ("transfer__l2", (-1.0,), "transfer.l2 is .*: write numbers at least 0"),
        ("transfer__recipe", "rfad", "transfer.recipe is 'rfad': take one of auto, kip, dc, frepo"),
        ("transfer__optimizer", "lion", "transfer.optimizer is 'lion': take one of sgd, adam, ada"),
        ("transfer__schedule", "step", "transfer.schedule is 'step': take one of cosine, drop"),
        ("transfer__width", 0, "transfer.width is 0: it must be at least 1"),
        ("transfer__learning_rate", (), r"transfer.learning_rate is \(\): write numbers above 0"),
        ("transfer__average", 1.0, "transfer.average is 1: the first weights would stay"),
        ("transfer__average", 1.5, "transfer.average is 1.5: it must lie between 0 and 1"),
        ("transfer__end_rate", -0.1, "transfer.end_rate is -0.1: it must be at least 0"),
        ("transfer__label_scale", 0.0, "transfer.label_scale is 0.0: it must be above 0"),
        ("transfer__held_out", 1.0, "transfer.held_out is 1.0: it must lie between 0 and 1"),
        ("transfer__baselines", ("best",), "transfer.baselines names 'best': take some of initial"),
        ("transfer__ladder", (10, 0), r"transfer.ladder is \(10, 0\): write sizes"),
        ("transfer__seeds", 0, "transfer.seeds is 0: it must be at least 1"),
        ("surprise", 1, "unknown config field surprise"),
        ("kernel__dept", 1, "unknown config field kernel.dept"),
    ],
)
def test_one_mistake_one_line(field, value, message):
    with pytest.raises(UserError, match=message) as caught:
        config_lib.validate(changed(**{field: value}))
    assert "\n" not in str(caught.value)


def test_types_are_checked():
    config = default.get_config().to_dict()
    config["support"]["learn_labels"] = 1
    with pytest.raises(UserError, match=r"support.learn_labels is 1: it must be of type bool"):
        config_lib.validate(type(default.get_config())(config))
    config["support"]["learn_labels"] = True
    config["num_steps"] = True
    with pytest.raises(UserError, match=r"num_steps is True: it must be of type int, not bool"):
        config_lib.validate(type(default.get_config())(config))
    config["num_steps"], config["reg"] = 3, 0
    config_lib.validate(type(default.get_config())(config))
    config["transfer"]["width"] = "8"  # Or nothing, which a recipe fills in.
    with pytest.raises(UserError, match=r"transfer.width is '8': it must be of type int, not str"):
        config_lib.validate(type(default.get_config())(config))


def test_what_a_recipe_fills_in_outlives_json():
    """As a run keeps its configuration; with some of it given, as older programs kept all of it."""
    config = ConfigDict(json.loads(json.dumps(changed(transfer__l2=(0.1,)).to_dict())))
    config_lib.validate(config)
    assert config.transfer.width is None
    assert tuple(config.transfer.l2) == (0.1,)
    config.transfer.width, config.transfer.average = 64, 0.5
    config_lib.validate(config)


def test_a_missing_field_is_named():
    config = default.get_config()
    with config.unlocked():
        del config.support.size
    with pytest.raises(UserError, match=r"without the field support\.size"):
        config_lib.validate(config)


def test_label_solve_refuses_augmentation():
    with pytest.raises(UserError, match="Label Solve does not augment"):
        config_lib.validate(changed(algorithm="ls", augment="flip"))


FILLED_IN = [
    ("recipe", "dc", "dc"),
    ("width", "64", 64),
    ("loss", "mse", "mse"),
    ("labels", "hard", "hard"),
    ("label_scale", "8", 8.0),
    ("centred", "True", True),
    ("scale_inputs", "False", False),
    ("augment", "flip,crop", "flip,crop"),
    ("augment_draw", "one", "one"),
    ("optimizer", "lamb", "lamb"),
    ("momentum", "0.5", 0.5),
    ("learning_rate", "(0.01, 1)", (0.01, 1)),
    ("lr_factor", "(0.3,)", (0.3,)),
    ("l2", "(0.0, 0.1)", (0.0, 0.1)),
    ("num_steps", "70", 70),
    ("batch_size", "7", 7),
    ("schedule", "drop", "drop"),
    ("warmup_steps", "3", 3),
    ("end_rate", "0.1", 0.1),
    ("average", "0.9", 0.9),
    ("choice_steps", "9", 9),
    ("every_steps", "5", 5),
]


@pytest.mark.parametrize(("name", "written", "value"), FILLED_IN)
def test_what_a_recipe_fills_in_is_set_on_the_command_line(name, written, value, monkeypatch):
    options = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=options)
    path = ROOT / "configs" / "kip_digits.py"
    command = ["main.py", f"--config={path}", f"--config.transfer.{name}={written}"]
    monkeypatch.setattr(sys, "argv", command)  # Where ml_collections looks for fields.
    options(command)
    config_lib.validate(options.config)
    found = options.config.transfer[name]
    assert (found, type(found)) == (value, type(value))
    others = set(config_lib.SECTIONS[-1].optional) - {f"transfer.{name}"}
    assert all(options.config.transfer[other[9:]] is None for other in others)


def test_every_field_that_a_recipe_fills_in_is_set():
    names = {f"transfer.{name}" for name, _, _ in FILLED_IN}
    assert names == {*config_lib.SECTIONS[-1].optional, "transfer.recipe"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"transfer__learning_rate": (0.1,), "transfer__lr_factor": (1.0,)},
            "transfer.learning_rate and transfer.lr_factor are both given: take one of them",
        ),
        (
            {"transfer__optimizer": "adam", "transfer__lr_factor": (1.0,)},
            "the optimizer is adam: give transfer.learning_rate, or transfer.optimizer='sgd'",
        ),
        (
            {"transfer__recipe": "kip", "transfer__optimizer": "adam"},
            "the optimizer is adam: give transfer.learning_rate",
        ),
        (
            {"transfer__num_steps": 100, "transfer__warmup_steps": 100},
            "transfer.warmup_steps is 100 of 100 steps: take fewer, or a larger",
        ),
        (
            {"transfer__recipe": "dc", "transfer__label_scale": 8.0},
            "transfer.label_scale is 8 and transfer.loss 'cross_entropy', whose labels are prob",
        ),
        (
            {"augment": "shift,flip", "kernel__mirrored": True},
            "augment has 'flip', which changes nothing with kernel.mirrored=True: leave it out",
        ),
    ],
)
def test_fields_that_do_not_go_together_are_reported(fields, message):
    with pytest.raises(UserError, match=message) as caught:
        config_lib.validate(changed(**fields))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"support__size": 15}, "support.size is 15, which is no multiple of the 10 classes"),
        ({"support__size": 50}, "support.size is 50 and digits has 40 training images"),
        ({"batch_size": 41}, "batch_size is 41 and digits has 40 training images"),
        ({"kernel__depth": 4}, "images of 8x8 pixels are too small for 4 pooling layers"),
        ({"kernel__mirrored": True}, "kernel.mirrored mirrors images.*kernel.mirrored=False"),
        ({"augment": "flip"}, "augment mirrors images, and a mirror image in digits may be of"),
    ],
)
def test_sizes_are_checked_against_the_data(fields, message):
    config_lib.check_data(changed(batch_size=40), dataset())
    with pytest.raises(UserError, match=message):
        config_lib.check_data(changed(**{"batch_size": 40} | fields), dataset())


def test_label_solve_takes_tiles_larger_than_the_training_set():
    config_lib.check_data(changed(algorithm="ls", batch_size=5000), dataset())


def test_one_class_is_refused():
    with pytest.raises(UserError, match=r"digits has one class \(0\): there must be another"):
        config_lib.check_data(changed(batch_size=40, support__size=1), dataset(classes=1))


@pytest.fixture
def foreign(monkeypatch):
    """An algorithm of one's own that describes a section, and fields without ranges."""
    module = types.ModuleType("mine.annealed")
    module.init = module.make_step = None
    module.FIELDS = {"annealing.name": str}
    module.SECTION = Section({"annealing.rate": float}, above_zero=("annealing.rate",))
    module.FACTS = Facts(title="Annealed", sections=("newton",))
    monkeypatch.setitem(sys.modules, "mine", types.ModuleType("mine"))
    monkeypatch.setitem(sys.modules, "mine.annealed", module)
    module.__spec__ = importlib.machinery.ModuleSpec("mine.annealed", None)

    def config(rate):
        made = default.get_config()
        with made.unlocked():
            made.annealing = ConfigDict({"name": "slow", "rate": rate})
        made.algorithm = "mine.annealed"
        return made

    return config


def test_an_algorithm_of_ones_own_describes_its_fields(foreign):
    config_lib.validate(foreign(0.5))
    with pytest.raises(UserError, match=r"annealing\.rate is 0\.0: it must be above 0"):
        config_lib.validate(foreign(0.0))
    with pytest.raises(UserError, match=r"annealing\.rate is 'x': it must be of type float"):
        config_lib.validate(foreign("x"))
    config = foreign(0.5)
    config.algorithm = "kip"
    with pytest.raises(UserError, match=r"unknown config field annealing\.name, annealing\.rate"):
        config_lib.validate(config)


def test_sections_that_an_algorithm_does_not_read_decide_nothing(foreign):
    names = config_lib.identity(foreign(0.5))
    assert {"annealing.rate", "newton.damping"} <= set(names)
    assert not any(name.startswith(("optimizer.", "matching.")) for name in names)


def test_every_field_has_one_owner():
    owned = [name for section in config_lib.SECTIONS for name in section.fields]
    assert len(owned) == len(set(owned))
    for section in config_lib.SECTIONS:
        described = {*section.choices, *section.minima, *section.above_zero}
        assert described <= set(section.fields)
    optional = algorithms.sections()
    names = ["bptt", "frepo", "matching", "newton", "optimizer", "privacy", "rfad"]
    assert sorted(optional) == names
    for name, section in optional.items():
        assert all(field.startswith(f"{name}.") for field in section.fields)


def test_the_configuration_of_kip_loads_no_flax_networks():
    """They take a second."""
    program = (
        "import sys; from configs import kip_digits; from kip_flax import config; "
        "config.validate(kip_digits.get_config()); print('flax.nnx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
