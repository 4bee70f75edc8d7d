"""The files of configs/: what each says of itself, and that each runs."""

import importlib
import json
from pathlib import Path

import pytest
import quick

from configs import default
from kip_flax import config as config_lib
from kip_flax.modes.train import mode as train

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("[!_]*.py"))
ASKED_FOR = (
    *("default", "kip_digits", "ls_digits", "kip_mnist", "kip_fashion_mnist", "kip_cifar10"),
    *("kip_cifar100", "kip_svhn", "kip_cifar10_fc", "kip_mnist_fixed_labels"),
    *("kip_cifar10_myrtle", "ls_cifar10", "ls_mnist", "kip_folder", "frepo_folder"),
    *("dc_digits", "dc_mnist", "dc_fashion_mnist", "dc_cifar10", "dc_cifar100", "dc_svhn"),
    *("dsa_digits", "dsa_mnist", "dsa_fashion_mnist", "dsa_cifar10", "dsa_cifar100", "dsa_svhn"),
    *("rfad_digits", "rfad_mnist", "rfad_fashion_mnist", "rfad_cifar10"),
)

# Long to compile, and their programs differ from another's in constants alone.
AS_ANOTHER = (
    *("bptt_fashion_mnist", "bptt_mnist", "bptt_cifar10", "dp_kip_mnist"),
    *("dsa_cifar10", "frepo_cifar10", "rfad_cifar10"),
)


def load(name):
    return importlib.import_module(f"configs.{name}")


def test_the_experiments_are_there():
    assert set(ASKED_FOR) <= set(NAMES)
    assert set(AS_ANOTHER) <= set(experiments())


@pytest.mark.parametrize("name", NAMES)
def test_config_says_what_it_is_and_how_to_run_it(name):
    module = load(name)
    config_lib.validate(module.get_config())
    assert f"python main.py --config=configs/{name}.py --workdir=runs/" in module.__doc__
    assert len(module.__doc__.strip().splitlines()) <= 10
    if name != "default":
        assert "\nSetting: " in module.__doc__
        assert "\nExpected: " in module.__doc__
        assert "\nMeasured: " in module.__doc__
        assert config_lib.flatten(module.get_config()) != config_lib.flatten(default.get_config())


def on_digits(name):
    """The configuration of a file, made small and for the digits."""
    config = load(name).get_config()
    if name.startswith(("dc_", "dsa_")) and name != "dc_digits":  # One compiles a ConvNet.
        config.matching.network, config.matching.augment = "mlp", config.matching.augment[:10]
    if name.startswith("frepo_"):
        config.frepo.network, config.frepo.pool, config.frepo.flip = "fc:1", 2, False
    if name.startswith("bptt_"):
        config.bptt.network, config.bptt.window, config.bptt.augment = "fc:1", 2, "scale"
        config.bptt.pool, config.bptt.networks = 2, 1
    config.kernel.mirrored = False  # Digits are not mirrored.
    config.rfad.networks, config.rfad.width = 2, 8
    config.privacy.noise_multiplier = 2.0  # To find it takes half a minute; privacy_test does.
    config.dataset.name, config.dataset.data_dir = "digits", ""
    config.support.size, config.batch_size, config.num_steps = 10, 20, 2
    config.eval.steps, config.eval.num_test, config.eval.batch_size = (2,), 20, 20
    config.mesh.data = 1
    config.report.num_train, config.eval.networks = 0, ()  # Both have tests of their own.
    if config.algorithm == "ls":
        config.batch_size = 719  # Two tiles.
    return config


def experiments():
    """The names of files, one of those that are the same experiment when made small."""
    first = {}
    idle = ("transfer.", "checkpoint.", "log.")
    for name in NAMES:
        fields = config_lib.flatten(on_digits(name)).items()
        first.setdefault(repr(sorted(f for f in fields if not f[0].startswith(idle))), name)
    return first.values()


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in AS_ANOTHER else []) for n in experiments()],
)
def test_config_runs_two_steps_on_digits(name, tmp_path, monkeypatch):
    config = on_digits(name)
    if config.kernel.architecture != "fc":  # A minute to compile; the kernels' own tests do.
        quick.install(monkeypatch)
    state = train.train_and_evaluate(config, str(tmp_path))
    assert state.step == 2
    images, _ = state.support
    assert images.shape == (10, 8, 8, 1)
    assert len(list((tmp_path / "distilled").glob("*_ckpt*.npz"))) == 2


@pytest.mark.parametrize("name", ["rfad_mnist", "rfad_fashion_mnist", "rfad_cifar10"])
def test_the_published_budget_of_rfad_is_the_papers(name):
    module = load(name)
    config = module.get_config("published")
    config_lib.validate(config)
    options = config.rfad
    assert (options.networks, options.width, options.loss) == (8, 256, "platt")
    assert (options.learning_rate, options.transform_rate) == (1e-3, 5e-5)
    assert (config.batch_size, config.reg) == (5120, 5e-3)
    with pytest.raises(ValueError, match="write minutes or many or published"):
        module.get_config("hours")


@pytest.mark.parametrize(
    ("name", "word"),
    [
        *[(f"frepo_{name}", "10") for name in ("cifar10", "mnist", "fashion_mnist")],
        *[("bptt_cifar10", "10"), ("rfad_cifar10", "many")],
    ],
)
def test_the_settings_of_ten_images_per_class_are_those_that_were_measured(name, word):
    row = json.loads((ROOT / "results" / f"{name}_100" / "figures.json").read_text())
    config = load(name).get_config(word)
    measured = config_lib.flatten(row["config"])
    given = config_lib.flatten(json.loads(json.dumps(config.to_dict())))
    others = ("eval.", "dataset.", "report.", "log.", "checkpoint.", "support.init")
    differ = {
        field: (value, measured[field])
        for field, value in given.items()
        if not field.startswith(others) and measured.get(field, value) != value
    }
    assert not differ
    assert (given["support.size"], row["config"]["support"]["size"]) == (100, 100)
    # Of fields that the row does not say: it is older, and the kernel only judges here.
    then, now = (config_lib.identity(fields) for fields in (row["config"], config))
    later = {field for field in now.keys() - then.keys() if not field.startswith(others)}
    assert later == ({"kernel.mirrored"} if name in ("frepo_cifar10", "bptt_cifar10") else set())


@pytest.mark.parametrize("name", ["frepo_cifar10", "frepo_mnist", "frepo_fashion_mnist"])
def test_the_published_setting_of_frepo_is_the_papers(name):
    config = load(name).get_config("published")
    config_lib.validate(config)
    options, optimizer = config.frepo, config.optimizer
    assert (options.width, options.growth, options.normalization) == (128, 2, "batch")
    assert (options.pool, options.life, options.learning_rate) == (10, 100, 3e-4)
    assert (optimizer.name, optimizer.learning_rate) == ("lamb", 3e-4)
    assert (optimizer.schedule, config.batch_size) == ("cosine_tenth", 1024)
    assert (config.num_steps, options.average, options.margin) == (500_000, 0.0, True)
    assert options.flip == (name == "frepo_cifar10")


@pytest.mark.parametrize("name", ["frepo_mnist", "bptt_fashion_mnist"])
def test_other_numbers_of_images_per_class_are_refused(name):
    with pytest.raises(ValueError, match=r"^50 images per class have not been tried: write 1 or"):
        load(name).get_config("50")
