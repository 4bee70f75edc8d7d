"""Families of experiments: what the rows of a method share."""

import re
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
FIVE_HUNDRED: dict[str, Any] = {
    "support__size": 500,
    "num_steps": 5,
    "batch_size": 5000,
    "newton__damping": 0.01,
    "newton__iterations": 40,
    "checkpoint__every_steps": 1,
    "eval__steps": (0,),
    "report__num_train": 0,  # Rows do not use the analysis.
}
ZCA = {"preprocess": "zca_normalize"}
# Rows by the plain kernel of configurations whose kernel is mirrored.
PLAIN: dict[str, Any] = {"kernel__mirrored": False}


def label_solve(
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


def from_coreset(experiment: Experiment, coreset: str) -> Experiment:
    """The experiment from chosen images in the place of drawn ones."""
    fields = experiment.fields | {"support.init": coreset}
    return replace(experiment, name=f"{experiment.name}_{coreset}", fields=fields, seeds=(0,))


def _dotted(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by dotted name: 'eval.steps' for the keyword 'eval__steps'."""
    return {key.replace("__", "."): value for key, value in fields.items()}


def kip(name: str, config: str, published: float | None, **fields: Any) -> Experiment:
    """A run of `config` along the curve; fields by name, with __ in the place of a dot."""
    more = _dotted(fields)
    return Experiment(name, config, {**_CHOSEN, "eval.steps": _CURVE} | more, published)


def newton(
    dataset: str, size: int, published: float | None, fixed: bool = False, **fields: Any
) -> Experiment:
    """KIP by Gauss-Newton steps, labels solved for or fixed."""
    name = f"kip_newton_{dataset}_{size}" + ("_fixed" if fixed else "")
    config = f"kip_newton_{dataset}"
    more = {"eval__steps": _NEWTON_CURVE, **(_HUNDRED if size == 100 else {})}
    more |= {"support__learn_labels": False} if fixed else {}
    more |= _plain(dataset)
    return kip(name, config, published, **(more | fields))


def _plain(dataset: str) -> dict[str, Any]:
    """`PLAIN` where Gauss-Newton steps take the mirrored kernel by default."""
    return PLAIN if dataset == "cifar10" else {}


def further(
    dataset: str, size: int, published: float, suffix: str, start: str, **fields: Any
) -> Experiment:
    """Continues another row's images with the current step criterion and other batches."""
    seed = fields.pop("seed", 1)
    more: dict[str, Any] = {
        "support__init": f"results/{start}",
        "newton__damping": 0.01,
        "newton__iterations": 40,
    }
    experiment = newton(dataset, size, published, **(more | fields))
    return replace(experiment, name=f"{experiment.name}_{suffix}", seeds=(seed,))


def late(dataset: str, published: float, start: str) -> Experiment:
    """Continues 100 images with many targets and little damping, as batch noise hides gains."""
    return further(
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


def hundred_further(suffix: str, start: str, **fields: Any) -> Experiment:
    """Continues another row's 100 images of CIFAR-10."""
    more = {"augment": "flip", "num_steps": 24, "eval__steps": (0, *range(6, 100, 6))}
    return further("cifar10", 100, 75.6, suffix, start, **(more | fields))


def label_solve_on(row: str, start: str) -> Experiment:
    """Label Solve for all training images, not 10,000, on 100 learned images of CIFAR-10."""
    experiment = label_solve("cifar10", 100, None, draws=1, **ZCA)
    fields = experiment.fields | {"support.init": f"results/{row}/{start}"}
    return replace(experiment, name=f"ls_on_{row}", fields=fields)


def by_cross_entropy(experiment: Experiment) -> Experiment:
    """Label Solve with labels of least cross-entropy in the place of least squared error."""
    fields = experiment.fields | {"algorithm": "ls_cross_entropy"}
    name = experiment.name.replace("ls_", "ls_cross_entropy_", 1)
    return replace(experiment, name=name, fields=fields)


def relabelled(row: str, start: str, published: float | None, **changes: Any) -> Experiment:
    """Another row's images, with the labels of least cross-entropy on all training images."""
    config, size = re.findall(r"^(.+?)_(\d+)", row)[0]
    fields = {
        "algorithm": "ls_cross_entropy",
        "support.init": f"results/{row}/{start}",
        "support.size": int(size),
        "batch_size": 1000,
        "augment": "",
        "eval.networks": (),
        "report.num_train": 0,
        **_dotted(changes),
    }
    return Experiment(f"{row}_relabelled", config, fields, published)


def for_networks() -> list[Experiment]:
    """KIP with a ridge of a tenth of the kernel's mean diagonal: less exact, meant for networks."""
    ten = {"num_steps": 40, "support__learn_labels": False, "eval__steps": _NEWTON_CURVE}
    hundred = ten | _HUNDRED | {"num_steps": 15}
    learned = {"num_steps": 200, "batch_size": 500, "eval__steps": _CURVE}
    followed = learned | {"support__size": 100, "num_steps": 60, "eval__steps": (0, 20, 40)}
    return [
        kip("kip_newton_mnist_10_fixed_ridge", "kip_newton_mnist", None, reg=0.1, **ten),
        kip("kip_mnist_10_ridge", "kip_mnist", None, reg=0.1, **learned),
        kip("kip_newton_mnist_100_fixed_ridge", "kip_newton_mnist", None, reg=0.1, **hundred),
        kip("kip_mnist_100_ridge", "kip_mnist", None, reg=0.1, **followed),
        kip(
            "kip_newton_cifar10_10_fixed_ridge",
            "kip_newton_cifar10",
            None,
            reg=0.1,
            **(ten | PLAIN),
        ),
    ]


def fully_connected(dataset: str, published: dict[int, float]) -> list[Experiment]:
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
        **_plain(dataset),
    }
    more = {
        "dataset__name": dataset,
        "support__learn_labels": True,
        "optimizer__schedule": "cosine",
        "eval__steps": (0, 50, 100, 200, 300, 400, 500),
    }
    name, descent = f"kip_fc_{dataset}", "kip_cifar10_fc"
    return [
        kip(f"{name}_10", f"kip_newton_{dataset}", published[10], **ten),
        kip(f"{name}_100", descent, published[100], num_steps=600, **more),
        kip(f"{name}_500", descent, published[500], support__size=500, **more),
    ]


def condensed(algorithm: str, dataset: str) -> Experiment:
    """DC or DSA as published, but with an eighth of the real images of each class."""
    fields = {**_CHOSEN, "batch_size": 320, "eval.steps": (0, 100, 200, 400, 600, 800, 1000)}
    return Experiment(f"{algorithm}_{dataset}_10", f"{algorithm}_{dataset}", fields)


def condensed_briefly(algorithm: str, dataset: str) -> Experiment:
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


def frepo(dataset: str, size: int, steps: int, **changes: Any) -> Experiment:
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
    return Experiment(f"frepo_{dataset}_{size}", f"frepo_{dataset}", fields | _dotted(changes))


def rfad(dataset: str, size: int = 10, **changes: Any) -> Experiment:
    """RFAD with narrow networks: ten images for networks, more for the kernel."""
    fields = {**_CHOSEN, "support.size": size, "report.num_train": 0}
    return Experiment(f"rfad_{dataset}_{size}", f"rfad_{dataset}", fields | _dotted(changes))


def rfad_many(
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
    return rfad(dataset, size, **many | changes)


def rfad_wide(dataset: str, start: str) -> Experiment:
    """RFAD with wider networks, whose kernel is nearer to the exact one, from another row's set."""
    wide: dict[str, Any] = {
        "support__init": f"results/{start}",
        **{"rfad__width": 128, "rfad__learning_rate": 0.01, "rfad__platt_rate": 0.1},
        **{"batch_size": 500, "eval__steps": (0, 200, 400), "augment": "flip"},
    }
    experiment = rfad_many(dataset, 100, 600, **wide)
    return replace(experiment, name=f"{experiment.name}_wide", seeds=(1,))


def bptt(dataset: str, start: str, name: str = "_10", **changes: Any) -> Experiment:
    """BPTT from another row's images, evaluated by networks on held-out images."""
    fields = {**_CHOSEN, "support.init": f"results/{start}", "report.num_train": 0}
    seeds = (changes.pop("seed", 0),)
    fields |= _dotted(changes)
    return Experiment(f"bptt_{dataset}{name}", f"bptt_{dataset}", fields, seeds=seeds)


def bptt_wide(dataset: str, start: str, seed: int, rate: float) -> Experiment:
    """BPTT with networks of the width that judges the set."""
    changes = {"seed": seed, "num_steps": 200, "optimizer__learning_rate": rate}
    return bptt(dataset, start, "_10_wide", eval__steps=(0, 100), **changes, bptt__width=128)


def bptt_narrow(
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
    return bptt(dataset, start, name, **fields | changes)
