"""The experiments: one for each row of the table."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from results.experiment import Experiment

# The number of steps and the checkpoint are chosen on a tenth of the training images; the test
# images are read once, after that.
_CHOSEN = {"dataset.validation": 0.1, "eval.num_test": 2000}
_CURVE = (0, 20, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000)
_NEWTON_CURVE = (0, 1, 2, *range(5, 100, 5))
_HUNDRED = {"support__size": 100, "num_steps": 30, "checkpoint__every_steps": 1}
# Labels of 500 images alone would fit 500 targets, a tenth of these. Derivatives take 8 GB.
_FIVE_HUNDRED: dict[str, Any] = {
    "support__size": 500,
    "num_steps": 5,
    "batch_size": 5000,
    "newton__damping": 0.01,
    "newton__iterations": 40,
    "checkpoint__every_steps": 1,
    "eval__steps": (0,),
    "report__num_train": 0,  # Rows do not use the analysis.
}
_ZCA = {"preprocess": "zca_normalize"}


def _label_solve(
    dataset: str, size: int, published: float | None, draws: int, **fields: Any
) -> Experiment:
    """Label Solve with ConvNet, averaged over as many draws of the images as time allows."""
    more = {
        "dataset.name": dataset,
        "support.size": size,
        "batch_size": 1000,
        "kernel.architecture": "convnet",
        "kernel.depth": 3,
        **fields,
    }
    return Experiment(f"ls_{dataset}_{size}", "ls_mnist", more, published, tuple(range(draws)))


def _from_coreset(experiment: Experiment, coreset: str) -> Experiment:
    """The experiment from chosen images in the place of drawn ones."""
    fields = experiment.fields | {"support.init": coreset}
    return replace(experiment, name=f"{experiment.name}_{coreset}", fields=fields, seeds=(0,))


def _dotted(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by dotted name: 'eval.steps' for the keyword 'eval__steps'."""
    return {key.replace("__", "."): value for key, value in fields.items()}


def _kip(name: str, config: str, published: float | None, **fields: Any) -> Experiment:
    more = _dotted(fields)
    return Experiment(name, config, {**_CHOSEN, "eval.steps": _CURVE} | more, published)


def _newton(
    dataset: str, size: int, published: float | None, fixed: bool = False, **fields: Any
) -> Experiment:
    """KIP by Gauss-Newton steps, labels solved for or fixed."""
    name = f"kip_newton_{dataset}_{size}" + ("_fixed" if fixed else "")
    config = f"kip_newton_{dataset}"
    more = {"eval__steps": _NEWTON_CURVE, **(_HUNDRED if size == 100 else {})}
    more |= {"support__learn_labels": False} if fixed else {}
    return _kip(name, config, published, **(more | fields))


def _further(
    dataset: str, size: int, published: float, suffix: str, start: str, **fields: Any
) -> Experiment:
    """Continues another row's images with the current step criterion and other batches."""
    more: dict[str, Any] = {
        "support__init": f"results/{start}",
        "seed": 1,
        "newton__damping": 0.01,
        "newton__iterations": 40,
    }
    experiment = _newton(dataset, size, published, **(more | fields))
    return replace(experiment, name=f"{experiment.name}_{suffix}")


def _late(dataset: str, published: float, start: str) -> Experiment:
    """Continues 100 images with many targets and little damping, as batch noise hides gains."""
    return _further(
        dataset,
        100,
        published,
        "further",
        f"kip_newton_{dataset}_100/{start}",
        batch_size=5000,
        num_steps=12,
        newton__damping=0.0003,
        eval__steps=(0, 4, 8),
    )


def _hundred_further(suffix: str, start: str, **fields: Any) -> Experiment:
    """Continues another row's 100 images of CIFAR-10."""
    more = {"augment": "flip", "num_steps": 24, "eval__steps": (0, *range(6, 100, 6))}
    return _further("cifar10", 100, 75.6, suffix, start, **(more | fields))


def _label_solve_on(row: str, start: str) -> Experiment:
    """Label Solve for all training images, not 10,000, on 100 learned images of CIFAR-10."""
    experiment = _label_solve("cifar10", 100, None, draws=1, **_ZCA)
    fields = experiment.fields | {"support.init": f"results/{row}/{start}"}
    return replace(experiment, name=f"ls_on_{row}", fields=fields)


def _for_networks() -> list[Experiment]:
    """KIP with a ridge of a tenth of the kernel's mean diagonal: less exact, meant for networks."""
    ten = {"num_steps": 40, "support__learn_labels": False, "eval__steps": _NEWTON_CURVE}
    hundred = ten | _HUNDRED | {"num_steps": 15}
    learned = {"num_steps": 200, "batch_size": 500, "eval__steps": _CURVE}
    followed = learned | {"support__size": 100, "num_steps": 60, "eval__steps": (0, 20, 40)}
    return [
        _kip("kip_newton_mnist_10_fixed_ridge", "kip_newton_mnist", None, reg=0.1, **ten),
        _kip("kip_mnist_10_ridge", "kip_mnist", None, reg=0.1, **learned),
        _kip("kip_newton_mnist_100_fixed_ridge", "kip_newton_mnist", None, reg=0.1, **hundred),
        _kip("kip_mnist_100_ridge", "kip_mnist", None, reg=0.1, **followed),
        _kip("kip_newton_cifar10_10_fixed_ridge", "kip_newton_cifar10", None, reg=0.1, **ten),
    ]


def _fully_connected(dataset: str, published: dict[int, float]) -> list[Experiment]:
    """KIP with one hidden layer: ten images by Gauss-Newton steps, more by gradient descent.

    Kernel entries cost so little that more targets per step pay off more than better steps.
    """
    ten = {
        "kernel__architecture": "fc",
        "kernel__depth": 1,
        "preprocess": "standard",
        "num_steps": 20,
        "batch_size": 5000,
        "eval__steps": _NEWTON_CURVE,
    }
    more = {
        "dataset__name": dataset,
        "support__learn_labels": True,
        "optimizer__schedule": "cosine",
        "eval__steps": (0, 50, 100, 200, 300, 400, 500),
    }
    name, descent = f"kip_fc_{dataset}", "kip_cifar10_fc"
    return [
        _kip(f"{name}_10", f"kip_newton_{dataset}", published[10], **ten),
        _kip(f"{name}_100", descent, published[100], num_steps=600, **more),
        _kip(f"{name}_500", descent, published[500], support__size=500, **more),
    ]


def _condensed(algorithm: str, dataset: str) -> Experiment:
    """DC or DSA as published, but with an eighth of the real images of each class."""
    fields = {**_CHOSEN, "batch_size": 320, "eval.steps": (0, 100, 200, 400, 600, 800, 1000)}
    return Experiment(f"{algorithm}_{dataset}_10", f"{algorithm}_{dataset}", fields)


def _condensed_briefly(algorithm: str, dataset: str) -> Experiment:
    """Ten images per class, from real ones: 20 networks of 5 epochs a step, not 1,000 of 50."""
    fields = {
        **_CHOSEN,
        "support.size": 100,
        "support.init": "real",
        "batch_size": 160,
        "num_steps": 200,
        "matching.outer_loops": 10,
        "matching.inner_loops": 5,
        "eval.steps": (0, 100, 200),
    }
    return Experiment(f"{algorithm}_{dataset}_100", f"{algorithm}_{dataset}", fields)


def _frepo(dataset: str, size: int, steps: int) -> Experiment:
    """FRePo; only ten images are evaluated by networks during the run, as more take too long."""
    fields = {
        **_CHOSEN,
        "support.size": size,
        "num_steps": steps,
        "eval.steps": (0, steps // 2),
        "report.num_train": 0,
    }
    if size > 10:
        fields |= {"eval.steps": (0,), "eval.networks": ()}
    return Experiment(f"frepo_{dataset}_{size}", f"frepo_{dataset}", fields)


def _rfad(dataset: str, size: int = 10, **changes: Any) -> Experiment:
    """RFAD with narrow networks: ten images for networks, more for the kernel."""
    fields = {**_CHOSEN, "support.size": size, "report.num_train": 0}
    return Experiment(f"rfad_{dataset}_{size}", f"rfad_{dataset}", fields | _dotted(changes))


def _rfad_many(
    dataset: str, size: int, steps: int, debias: bool = False, **changes: Any
) -> Experiment:
    """The settings of `configs/rfad_*.py:many`; with `debias` narrower networks, debiased."""
    networks = {"rfad__networks": 4, "rfad__width": 64}
    if debias:
        networks = {"rfad__networks": 8, "rfad__width": 32, "rfad__debias": True}
    many = {
        **networks,
        **{"rfad__average": 0.99, "rfad__learning_rate": 0.02, "rfad__schedule": "cosine"},
        **{"batch_size": 1000, "num_steps": steps},
        **{"eval__steps": tuple(range(0, steps, 500)), "eval__networks": ()},
    }
    return _rfad(dataset, size, **many | changes)


def _rfad_wide(dataset: str, start: str) -> Experiment:
    """RFAD with wider networks, whose kernel is nearer to the exact one, from another row's set."""
    wide: dict[str, Any] = {
        **{"support__init": f"results/{start}", "seed": 1},
        **{"rfad__width": 128, "rfad__learning_rate": 0.01, "rfad__platt_rate": 0.1},
        **{"batch_size": 500, "eval__steps": (0, 200, 400), "augment": "flip"},
    }
    experiment = _rfad_many(dataset, 100, 600, **wide)
    return replace(experiment, name=f"{experiment.name}_wide")


def _bptt(dataset: str, start: str, name: str = "_10", **changes: Any) -> Experiment:
    """BPTT from another row's images, evaluated by networks on held-out images."""
    fields = {**_CHOSEN, "support.init": f"results/{start}", "report.num_train": 0}
    fields |= _dotted(changes)
    return Experiment(f"bptt_{dataset}{name}", f"bptt_{dataset}", fields)


def _bptt_wide(dataset: str, start: str, seed: int, rate: float) -> Experiment:
    """BPTT with networks of the width that judges the set."""
    changes = {"seed": seed, "num_steps": 200, "optimizer__learning_rate": rate}
    return _bptt(dataset, start, "_10_wide", eval__steps=(0, 100), **changes, bptt__width=128)


def _bptt_narrow(
    dataset: str, start: str, steps: int, name: str = "_100", **changes: Any
) -> Experiment:
    """BPTT of 100 images by networks of width 32, at a third of the cost, and larger batches.

    Networks take too long to watch there, so the last set is kept.
    """
    fields = {
        **{"support__size": 100, "num_steps": steps, "batch_size": 1024},
        **{"bptt__width": 32, "bptt__life": 1000},
        **{"eval__num_test": 500, "eval__steps": tuple(range(0, steps, 100)), "eval__networks": ()},
    }
    return _bptt(dataset, start, name, **fields | changes)


# `run_all` runs them from top to bottom.
EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment("kip_digits_10", "kip_digits"),
    Experiment("kip_digits_10_fixed", "kip_digits", {"support.learn_labels": False}),
    _from_coreset(Experiment("kip_digits_10", "kip_digits"), "herding"),
    Experiment("kip_newton_digits_10", "kip_newton_digits"),
    Experiment("kip_newton_digits_10_fixed", "kip_newton_digits", {"support.learn_labels": False}),
    Experiment("ls_digits_10", "ls_digits", seeds=(0, 1, 2, 3, 4)),
    _from_coreset(Experiment("ls_digits_10", "ls_digits"), "herding"),
    _kip("kip_mnist_10", "kip_mnist", 97.3),
    _kip("kip_solve_mnist_10", "kip_mnist", 97.3, algorithm="kip_solve", num_steps=400),
    _kip("kip_cifar10_10", "kip_cifar10", 64.7),
    _kip("kip_solve_cifar10_10", "kip_cifar10", 64.7, algorithm="kip_solve", num_steps=250),
    _newton("mnist", 10, 97.3),
    _newton("fashion_mnist", 10, 82.9),
    _newton("cifar10", 10, 64.7),
    _further(
        "cifar10",
        10,
        64.7,
        "further",
        "kip_newton_cifar10_10/ConvNet_ssize10_zca_l_noaug_ckpt80.npz",
        batch_size=5000,
        num_steps=12,
        eval__steps=(0, 2, 4, 6, 8, 10),
        augment="flip",
    ),
    _newton("mnist", 10, None, fixed=True),
    _newton("fashion_mnist", 10, None, fixed=True),
    _newton("cifar10", 10, None, fixed=True),
    _newton("mnist", 100, 99.1),
    _late("mnist", 99.1, "ConvNet_ssize100_nozca_l_noaug_ckpt30.npz"),
    _newton("mnist", 500, 99.5, **_FIVE_HUNDRED),
    _further(
        "mnist",
        500,
        99.5,
        "further",
        "kip_newton_mnist_500/ConvNet_ssize500_nozca_l_noaug_ckpt5.npz",
        **(_FIVE_HUNDRED | {"num_steps": 6, "newton__damping": 0.0003}),
    ),
    _newton("fashion_mnist", 100, 91.0),
    _late("fashion_mnist", 91.0, "ConvNet_ssize100_nozca_l_noaug_ckpt20.npz"),
    _newton("cifar10", 100, 75.6, num_steps=16, newton__damping=0.01, eval__steps=(0, 10)),
    _hundred_further("further", "kip_newton_cifar10_100/ConvNet_ssize100_zca_l_noaug_ckpt10.npz"),
    _hundred_further(
        "furthest",
        "kip_newton_cifar10_100_further/ConvNet_ssize100_zca_l_aug_ckpt24.npz",
        seed=2,
        num_steps=12,  # More steps gained nothing on held-out images.
    ),
    _hundred_further(
        "larger",
        "kip_newton_cifar10_100_furthest/ConvNet_ssize100_zca_l_aug_ckpt12.npz",
        seed=3,
        batch_size=5000,
        num_steps=3,
        eval__steps=(0, 3),
    ),
    _label_solve_on("kip_newton_cifar10_100_furthest", "ConvNet_ssize100_zca_l_aug_ckpt12.npz"),
    _newton("mnist", 100, None, fixed=True),
    *_for_networks(),
    *_fully_connected("mnist", {10: 85.5, 100: 97.2, 500: 98.4}),
    *_fully_connected("cifar10", {10: 40.5, 100: 53.1, 500: 58.6}),
    _rfad("cifar10"),
    _rfad("mnist"),
    _rfad_many("cifar10", 100, 2500, augment="flip"),
    _rfad_wide("cifar10", "rfad_cifar10_100/ConvNet3_ssize100_zca_l_aug_ckpt2500.npz"),
    replace(
        _rfad_many("cifar10", 100, 2500, debias=True, augment="flip"),
        name="rfad_cifar10_100_debiased",
    ),
    _rfad_many("cifar10", 500, 500, augment="flip"),
    _frepo("cifar10", 10, 4000),
    _frepo("cifar10", 100, 3000),
    _frepo("mnist", 10, 2000),
    _frepo("mnist", 100, 2000),
    _frepo("fashion_mnist", 10, 2000),
    _frepo("fashion_mnist", 100, 2000),
    _bptt("mnist", "frepo_mnist_10/ConvNet_ssize10_nozca_l_noaug_ckpt2000.npz"),
    _bptt("fashion_mnist", "frepo_fashion_mnist_10/ConvNet_ssize10_nozca_l_noaug_ckpt2000.npz"),
    _bptt(
        "mnist",
        "bptt_mnist_10/ConvNet_ssize10_nozca_l_noaug_ckpt600.npz",
        "_10_further",
        seed=1,
        num_steps=400,
        optimizer__learning_rate=0.003,
        eval__steps=(0, 200),
    ),
    _bptt_wide(
        "mnist",
        "bptt_mnist_10_further/ConvNet_ssize10_nozca_l_noaug_ckpt400.npz",
        seed=2,
        rate=0.01,
    ),
    _bptt_wide(
        "fashion_mnist",
        "bptt_fashion_mnist_10/ConvNet_ssize10_nozca_l_noaug_ckpt400.npz",
        seed=1,
        rate=0.005,
    ),
    _bptt("cifar10", "frepo_cifar10_10/ConvNet_ssize10_zca_l_noaug_ckpt4000.npz"),
    _bptt_narrow(
        "cifar10", "frepo_cifar10_100/ConvNet_ssize100_zca_l_noaug_ckpt3000.npz", steps=300
    ),
    _bptt_narrow(
        "mnist",
        "frepo_mnist_100/ConvNet_ssize100_nozca_l_noaug_ckpt2000.npz",
        steps=400,
        batch_size=256,
        bptt__life=500,
    ),
    _bptt_narrow(
        "mnist",
        "bptt_mnist_100/ConvNet_ssize100_nozca_l_noaug_ckpt400.npz",
        steps=60,
        name="_100_further",
        seed=1,
        optimizer__learning_rate=0.01,
        bptt__width=64,
    ),
    _bptt(
        "fashion_mnist",
        "frepo_fashion_mnist_100/ConvNet_ssize100_nozca_l_noaug_ckpt2000.npz",
        "_100",
        support__size=100,
        num_steps=150,
        eval__steps=(0,),
        eval__networks=(),
    ),
    _bptt_narrow(
        "fashion_mnist",
        "bptt_fashion_mnist_100/ConvNet_ssize100_nozca_l_noaug_ckpt150.npz",
        steps=150,
        name="_100_further",
        seed=1,
    ),
    _condensed("dc", "mnist"),
    _condensed("dc", "cifar10"),
    _condensed("dsa", "mnist"),
    _condensed_briefly("dc", "mnist"),
    _condensed_briefly("dsa", "mnist"),
    _label_solve("mnist", 10, 73.35, draws=5),
    _from_coreset(_label_solve("mnist", 10, 73.35, draws=1), "herding"),
    # Draws differ by three points, so five are too few.
    _label_solve("fashion_mnist", 10, 65.30, draws=20),
    replace(
        _label_solve("fashion_mnist", 10, 65.30, draws=10, preprocess="none"),
        name="ls_fashion_mnist_10_raw",
    ),
    _from_coreset(_label_solve("fashion_mnist", 10, 65.30, draws=1), "herding"),
    _label_solve("cifar10", 10, 26.09, draws=5, **_ZCA),
    _from_coreset(_label_solve("cifar10", 10, 26.09, draws=1, **_ZCA), "herding_unit"),
    _label_solve("mnist", 100, 96.39, draws=3),
    _from_coreset(_label_solve("mnist", 100, 96.39, draws=1), "herding"),
    _label_solve("fashion_mnist", 100, 80.84, draws=3),
    _label_solve("cifar10", 100, 53.59, draws=3, **_ZCA),
    _label_solve("mnist", 500, 98.28, draws=1),
    _label_solve("fashion_mnist", 500, 86.85, draws=1),
    _label_solve("cifar10", 500, 65.89, draws=1, **_ZCA),
)
