"""Keeps the network of a transfer that is best on held-out images, for later use."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kip_flax
from kip_flax.data import Dataset
from kip_flax.networks import named, saved
from kip_flax.networks.progress import Trained
from kip_flax.networks.trial import Trial
from kip_flax.preprocess import Preprocess
from kip_flax.runtime.errors import UserError

FOLDER = "network"
TRANSFER = "transfer (checksum)"


@dataclass(eq=False)
class BestNetwork:
    """Keeps the best of the networks that are trained on the distilled set.

    Attributes:
        folder: folder of the network.
        like: how described networks are made.
        dataset: provides image shape and class names.
        fitted: preprocessing of pictures.
        facts: JSON values that are the same for all networks. A network in the folder with another
            `TRANSFER` is not compared with.
        size: images of the distilled set.
        network: the best so far; None if there is none.
    """

    folder: Path
    like: named.NetworkOptions
    dataset: Dataset
    fitted: Preprocess
    facts: dict[str, Any]
    size: int
    network: saved.TrainedNetwork | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        with contextlib.suppress(UserError):  # No network from an earlier part.
            earlier = saved.load(self.folder)
            own = self.facts.get(TRANSFER)
            if earlier.facts.get(TRANSFER, own) == own:  # Old ones do not name their transfer.
                self.network = earlier

    def offer(self, name: str, trial: Trial, one: Trained) -> None:
        """Keeps a network called `name` if it is the best so far on held-out images."""
        if self.network is not None and self.network.facts["held_out"] >= one.held_out:
            return
        facts = {
            "held_out": one.held_out,
            "test": one.test,
            "seed": one.seed,
            "recipe": trial.recipe.words,
            "version": kip_flax.__version__,
        }
        self.network = saved.TrainedNetwork(
            name=name,
            like=self.like,
            image_shape=self.dataset.image_shape,
            class_names=self.dataset.class_names,
            fitted=self.fitted,
            scale=float(trial.scale),
            weights=one.weights(),
            facts=facts | self.facts,
        )
        saved.save(self.folder, self.network)

    @property
    def words(self) -> str:
        """A line on the network that is kept; '' if there is none."""
        if self.network is None:
            return ""
        facts = self.network.facts
        return (
            f"network {self.folder}: {self.network.name}, {facts['held_out']:.2%} of held-out and "
            f"{facts['test']:.2%} of {self.dataset.split} images (--mode=predict uses it)"
        )
