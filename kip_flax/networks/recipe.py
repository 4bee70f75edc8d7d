"""How networks are trained on a set: whole recipes by name.

A field of `transfer` that the configuration leaves at None takes the value of the recipe. Some
values depend on the set: the number of steps on its size, augmentations on what its images show.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kip_flax.data import augment
from kip_flax.runtime.errors import UserError

RECIPES = ("auto", "kip", "dc", "frepo")
OPTIMIZERS = ("sgd", "adam", "adabelief", "lamb")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained on a set.

    Attributes:
        loss: 'mse', 0.5 * mean((f - y)^2) over images and classes, or 'cross_entropy'.
        labels: 'soft' or 'hard', see `train.training_labels`.
        optimizer: one of `OPTIMIZERS`.
        rates: learning rates, of which one is chosen.
        relative: whether rates are in units of the largest that the tangent kernel allows.
        l2s: factors, one of which is chosen with a rate: the loss gets l2/2 |p|^2 of the parameters
            p, or l2/2 |p - p0|^2 if `centred`.
        num_steps: steps of one training.
        batch_size: images of a step, drawn without replacement; all if there are no more.
        momentum: of 'sgd'.
        schedule: 'cosine' falls to `end_rate` at the end, 'drop' falls to it at half of the steps.
        warmup_steps: steps of linear growth of the rate from 0, before the schedule takes over.
        end_rate: share of the rate that is left at the end, 0 to 1.
        average: decay of the exponential mean of the weights (debiased), which is tested; 0: the
            last weights are tested.
        label_scale: factor of the labels.
        centred: whether to train f - f0, the outputs minus those of the initial network.
        scale_inputs: whether to divide images by the standard deviation of the real ones.
        augments: names from `augment`, applied to every batch.
        augment_draw: 'all' of them, or 'one', drawn for every batch (see `augment.one_of`).
        choice_steps: steps of the short trainings that choose a candidate.
        width: channels or units of a layer of networks built from descriptions.
    """

    loss: str
    labels: str
    optimizer: str
    rates: tuple[float, ...]
    num_steps: int
    batch_size: int
    width: int
    relative: bool = False
    l2s: tuple[float, ...] = (0.0,)
    momentum: float = 0.9
    schedule: str = "cosine"
    warmup_steps: int = 0
    end_rate: float = 0.0
    average: float = 0.0
    label_scale: float = 1.0
    centred: bool = False
    scale_inputs: bool = False
    augments: tuple[str, ...] = ()
    augment_draw: str = "all"
    choice_steps: int = 1

    @property
    def candidates(self) -> list[tuple[float, float]]:
        """All pairs of a rate and an L2."""
        return list(itertools.product(self.rates, self.l2s))

    @property
    def words(self) -> str:
        """The recipe in words, the most important first."""
        unit = " of the largest rate" if self.relative else ""
        rates = " or ".join(f"{rate:g}" for rate in self.rates) + unit
        l2s = " or ".join(f"{l2:g}" for l2 in self.l2s)
        one = "one of " if self.augment_draw == "one" and self.augments else ""
        augmented = f"augmented by {one}{', '.join(self.augments) or 'nothing'}"
        mean = f", mean of the weights {self.average:g}" if self.average else ""
        scaled = f" times {self.label_scale:g}" if self.label_scale != 1 else ""
        return (
            f"{self.num_steps} steps of at most {self.batch_size} images, {self.loss} on "
            f"{self.labels} labels{scaled}, {self.optimizer} {rates}, L2 {l2s}, {augmented}{mean}"
        )

    def choosing(self) -> "Recipe":
        """The recipe of the short trainings that choose a candidate."""
        steps = min(self.choice_steps, self.num_steps)
        warmup = self.warmup_steps * steps // self.num_steps
        return dataclasses.replace(self, num_steps=steps, warmup_steps=warmup)


def make(
    name: str,
    size: int,
    channels: int = 3,
    mirrorable: bool = False,
    changes: Mapping[str, Any] | None = None,
) -> Recipe:
    """The recipe `name` for a set.

    Args:
        name: one of `RECIPES`.
        size: images of the set.
        channels: of an image.
        mirrorable: whether images may be flipped, see `data.Dataset`.
        changes: fields of `transfer` by their names there, such as `learning_rate`, that replace
            those of the recipe; None and other names change nothing.

    Raises:
        UserError: two fields contradict each other.
    """
    recipe = _changed(_RECIPES[name](size, channels, mirrorable), changes or {})
    _check_recipe(recipe)
    return recipe


def _changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with `changes` as in `make`; not all sizes have steps enough for a warm-up."""
    given = {k: v for k, v in changes.items() if v is not None}
    if "learning_rate" in given and "lr_factor" in given:
        raise UserError(
            "transfer.learning_rate and transfer.lr_factor are both given: take one of them."
        )
    steps = given.get("num_steps")
    if steps is not None and "warmup_steps" not in given:
        recipe = dataclasses.replace(recipe, warmup_steps=min(recipe.warmup_steps, steps // 2))
    recipe = dataclasses.replace(recipe, **_attributes(given))
    if recipe.loss != "mse" and "label_scale" not in given:
        recipe = dataclasses.replace(recipe, label_scale=1.0)
    if "choice_steps" not in given:
        recipe = dataclasses.replace(recipe, choice_steps=math.ceil(recipe.num_steps / 5))
    return recipe


def _attributes(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `transfer` as attributes of a recipe."""
    same = [field.name for field in dataclasses.fields(Recipe) if field.name in given]
    found = {name: given[name] for name in same}
    if "learning_rate" in given:
        found |= {"rates": tuple(given["learning_rate"]), "relative": False}
    if "lr_factor" in given:
        found = {"optimizer": "sgd"} | found
        found |= {"rates": tuple(given["lr_factor"]), "relative": True}
    if "l2" in given:
        found["l2s"] = tuple(given["l2"])
    if "augment" in given:
        found["augments"] = augment.parse(given["augment"], "transfer.augment")
    return found


def _check_recipe(recipe: Recipe) -> None:
    if recipe.relative and recipe.optimizer != "sgd":
        raise UserError(
            f"transfer.lr_factor is of the largest rate of gradient descent and the optimizer is "
            f"{recipe.optimizer}: give transfer.learning_rate, or transfer.optimizer='sgd'."
        )
    if recipe.warmup_steps >= recipe.num_steps:
        raise UserError(
            f"transfer.warmup_steps is {recipe.warmup_steps} of {recipe.num_steps} steps: take "
            f"fewer, or a larger transfer.num_steps."
        )
    if recipe.label_scale != 1 and recipe.loss != "mse":
        raise UserError(
            f"transfer.label_scale is {recipe.label_scale:g} and transfer.loss "
            f"{recipe.loss!r}, whose labels are probabilities: scale those of 'mse'."
        )


def resolved(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe that `fields` lead to, by dotted name; a list of values where the size decides.

    Configurations that train alike have the same result, however they are written.

    Args:
        fields: of `transfer`, by their names there.
    """
    published = _RECIPES[fields["recipe"]]
    by_size = [_changed(published(size, 3, False), fields) for size in (10, 100, LARGE)]
    settled: dict[str, Any] = {}
    for name in (field.name for field in dataclasses.fields(Recipe)):
        values = [getattr(one, name) for one in by_size]
        settled[name] = values[0] if all(v == values[0] for v in values) else values
    settled["lr_factor" if settled.pop("relative") else "learning_rate"] = settled.pop("rates")
    settled["l2"] = settled.pop("l2s")
    settled["augment"] = settled.pop("augments")
    if fields["augment"] is None:  # The data decide; they are compared elsewhere.
        settled["augment"] = f"as {fields['recipe']} says"
    if len(by_size[0].candidates) == 1:
        del settled["choice_steps"]
    return {f"transfer.{name}": value for name, value in settled.items()}


def _auto(size: int, channels: int, mirrorable: bool) -> Recipe:
    """Chosen on held-out training images of CIFAR-10 and MNIST, see docs/what-was-tried.md."""
    return Recipe(
        loss="mse",
        labels="soft",
        optimizer="adam",
        rates=(1e-3,),
        num_steps=_between(_FREPO_STEPS, size) // 2,
        batch_size=500 if size <= _MANY else 125,
        width=128,
        average=0.99,
        label_scale=8.0,
        scale_inputs=True,
        augments=("flip", "nudge") if mirrorable else ("scale", "rotate"),
        augment_draw="all" if mirrorable else "one",
    )


def _kip(size: int, channels: int, mirrorable: bool) -> Recipe:
    """Nguyen et al., NeurIPS 2021, section 4, and the notebook published with it."""
    return Recipe(
        loss="mse",
        labels="soft",
        optimizer="sgd",
        rates=(1.0,),
        relative=True,
        l2s=(1e-3,),
        num_steps=5000,
        batch_size=100,
        width=1024,
    )


def _dc(size: int, channels: int, mirrorable: bool) -> Recipe:
    """Zhao and Bilen, ICML 2021 (DSA): the evaluation in their published code.

    That of DC (ICLR 2021) in the same code takes 300 epochs, and augments MNIST alone.
    """
    batch, epochs = 256, 1000
    names = augment.DSA_AUGMENTS if channels == 3 or mirrorable else ("crop", "scale", "rotate")
    return Recipe(
        loss="cross_entropy",
        labels="hard",
        optimizer="sgd",
        rates=(0.01,),
        l2s=(5e-4,),
        num_steps=epochs * math.ceil(size / batch),
        batch_size=batch,
        width=128,
        schedule="drop",
        end_rate=0.1,
        augments=_without_flip(names, mirrorable),
        augment_draw="one",
    )


def _frepo(size: int, channels: int, mirrorable: bool) -> Recipe:
    """Zhou et al., NeurIPS 2022: the evaluation in their published code.

    Their loss is a sum over classes. The mean trains alike, as Adam ignores the scale of the loss.
    They keep the mean of the weights too, but test the last ones.
    """
    names = ("flip", "color", "crop", "rotate", "shift", "cutout")
    return Recipe(
        loss="mse",
        labels="soft",
        optimizer="adam",
        rates=(3e-4,),
        num_steps=_between(_FREPO_STEPS, size),
        batch_size=500,
        width=128,
        warmup_steps=500,
        end_rate=0.01,
        average=0.995,
        augments=_without_flip(names, mirrorable),
        augment_draw="one",
    )


_RECIPES = {"auto": _auto, "kip": _kip, "dc": _dc, "frepo": _frepo}
LARGE = 10_000  # Images, of which every recipe but 'dc' takes as many steps as of any set.
_MANY = 250  # All of more images in each step cost hours for little: docs/what-was-tried.md.
# Pairs: number of images, number of steps.
_FREPO_STEPS = ((10, 1000), (100, 2000), (500, 5000), (1000, 10_000), (5000, 40_000))


def _without_flip(names: tuple[str, ...], mirrorable: bool) -> tuple[str, ...]:
    return names if mirrorable else tuple(name for name in names if name != "flip")


def _between(points: tuple[tuple[int, int], ...], size: int) -> int:
    """Interpolation between `points`, linear in both logarithms; constant beyond them."""
    if size <= points[0][0]:
        return points[0][1]
    for (n1, v1), (n2, v2) in itertools.pairwise(points):
        if size <= n2:
            share = math.log(size / n1) / math.log(n2 / n1)
            return round(v1 * (v2 / v1) ** share)
    return points[-1][1]
