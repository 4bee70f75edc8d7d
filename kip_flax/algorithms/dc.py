"""DC: dataset condensation by gradient matching.

This module draws the real images and makes the network; the step is in `_gradient_matching`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax
import numpy as np
from ml_collections import ConfigDict

from kip_flax import data
from kip_flax.algorithms import _gradient_matching as gradient_matching
from kip_flax.algorithms import base
from kip_flax.algorithms._gradient_matching import MatchingState
from kip_flax.algorithms.interface import Facts, Problem, Step
from kip_flax.data import Dataset, augment
from kip_flax.runtime import sharding
from kip_flax.runtime.errors import UserError

if TYPE_CHECKING:
    from kip_flax.networks.build import Functions, Make

_BIBTEX = """@inproceedings{zhao2021dataset,
  title     = {Dataset Condensation with Gradient Matching},
  author    = {Zhao, Bo and Mopuri, Konda Reddy and Bilen, Hakan},
  booktitle = {International Conference on Learning Representations},
  year      = {2021},
  note      = {arXiv:2006.05929}
}"""

SECTION = gradient_matching.SECTION
FACTS = Facts(
    title="DC",
    spelled_out="Dataset Condensation (DC)",
    for_networks=True,
    tag="gradient-matching",
    bibtex=_BIBTEX,
    sections=("matching", "optimizer"),
    if_not_finite="lower optimizer.learning_rate or matching.learning_rate",
    published_recipe=gradient_matching.published_recipe,
)


def init(config: ConfigDict, images: jax.Array, labels: jax.Array) -> MatchingState:
    """State before the first step: support images (S, H, W, C) and labels (S, classes)."""
    net = _network(config, images.shape[1:], labels.shape[1])
    return gradient_matching.init(images, labels, net, base.make_optimizer(config))


def make_step(problem: Problem) -> Step:
    """A step that updates the images, with fresh real images, the same number per class."""
    config, targets, mesh = problem.config, problem.targets, problem.mesh
    key_draw, key_match = jax.random.split(problem.key)
    options, classes = config.matching, targets.num_classes
    training = gradient_matching.InnerTraining(
        outer_loops=options.outer_loops,
        inner_loops=options.inner_loops,
        learning_rate=options.learning_rate,
        batch_train=options.batch_train,
        augments=augment.parse(options.augment),
    )
    net = _network(config, targets.images.shape[1:], classes)
    tx = base.make_optimizer(config)
    update = base.pinned(gradient_matching.make_step(net, tx, training, mesh, key_match), mesh)

    def step(state: MatchingState, number: int) -> tuple[MatchingState, dict[str, jax.Array]]:
        key = jax.random.fold_in(key_draw, number)
        rows = data.balanced_draw(targets.labels, config.batch_size, classes, key)
        by_class = rows[np.argsort(targets.labels[rows], kind="stable")].reshape(classes, -1).T
        real, _, weights = sharding.put_targets(mesh, targets.images[by_class], by_class)
        return update(state, real, weights)

    return step


def check(config: ConfigDict) -> None:
    """Raises UserError if labels are to be learned, or `matching.augment` is set."""
    check_fixed(config)
    if config.matching.augment:
        raise UserError(
            f"matching.augment is {config.matching.augment!r}: DC does not augment: leave it "
            f"empty, or take algorithm='dsa'."
        )


def check_fixed(config: ConfigDict) -> None:
    """Raises UserError unless only images are learned, from a draw, without `config.augment`."""
    if config.support.init not in base.SUPPORT_DRAWS:  # Other labels may be soft.
        raise UserError(
            f"support.init is {config.support.init!r}: gradient matching begins with real images "
            f"or noise: take one of {', '.join(base.SUPPORT_DRAWS)}."
        )
    if config.support.learn_labels:
        raise UserError(
            "support.learn_labels is True: gradient matching learns images alone: set it to False."
        )
    if config.augment:
        raise UserError(
            f"augment is {config.augment!r}: gradient matching augments as matching.augment says: "
            f"leave it empty."
        )


def check_data(config: ConfigDict, dataset: Dataset) -> None:
    """Raises UserError unless every class fills its shares and images fit the network, or if images
    would be mirrored that may not be."""
    names = augment.parse(config.matching.augment)
    augment.check_effect(names, dataset.image_shape, "matching.augment")
    if "flip" in names:
        others = "--config.matching.augment=color,crop,cutout,scale,rotate"
        base.check_mirrorable(dataset, "matching.augment", others)
    classes = dataset.num_classes
    fewest = int(np.bincount(dataset.train_labels, minlength=classes).min())
    if config.batch_size % classes or config.batch_size > fewest * classes:
        fit = max(1, min(config.batch_size // classes, fewest)) * classes
        raise UserError(
            f"batch_size is {config.batch_size}: gradient matching takes as many real images of "
            f"each of the {classes} classes of {dataset.name}, at most {fewest}: take {fit}."
        )
    if config.support.init == "real" and config.support.size > fewest * classes:
        raise UserError(
            f"support.size is {config.support.size}: gradient matching begins with as many real "
            f"images of each of the {classes} classes of {dataset.name}, at most {fewest}: take "
            f"{fewest * classes}, or support.init='noise'."
        )
    from kip_flax.networks import build  # Flax's modules take a second to load.

    build.num_parameters(_make(config.matching.network, dataset.image_shape, classes))


def _network(config: ConfigDict, shape: tuple[int, ...], classes: int) -> Functions:
    from kip_flax.networks import build

    return build.functions(_make(config.matching.network, shape, classes))


def _make(name: str, shape: tuple[int, ...], classes: int) -> Make:
    from kip_flax.networks import zoo

    height, width, channels = shape
    return functools.partial(zoo.make_network, name, (height, width, channels), classes)
