"""The likely cost of an accuracy: the curve of a measured run, scaled to the planned one.

`curves.json` holds the accuracies of the runs in results/ over the targets that they drew, on
held-out images or, where a run has none, on test images; `python -m results.curves` writes it.
"""

import json
import math
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple

FILE = "curves.json"


@dataclass(frozen=True)
class Curve:
    """A measured run that began with real images and learned its labels, or a chain of such runs.

    Attributes:
        row: its name in results/; of a chain, that of the last.
        algorithm, dataset, architecture, mirrored: as in a configuration.
        size, targets: images of the support; targets of the last step.
        points: (targets drawn so far, accuracy 0 to 1), ascending.
        on: the images of the accuracies, 'validation' or 'test'.
    """

    row: str
    algorithm: str
    dataset: str
    architecture: str
    mirrored: bool
    size: int
    targets: int
    points: tuple[tuple[int, float], ...]
    on: str

    @property
    def images(self) -> str:
        """'held-out images' or 'test images'."""
        return "test images" if self.on == "test" else "held-out images"


class Milestone(NamedTuple):
    """An accuracy (0 to 1), and the steps and seconds that it will probably take."""

    accuracy: float
    steps: int
    seconds: float


def measured() -> tuple[Curve, ...]:
    """All curves of `curves.json`."""
    text = resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    return tuple(
        Curve(**(row | {"points": tuple(map(tuple, row["points"]))})) for row in json.loads(text)
    )


def nearest(
    curves: tuple[Curve, ...],
    setting: tuple[str, str, str],
    mirrored: bool,
    size: int,
    targets: int,
) -> Curve | None:
    """The curve of this setting with the support of most similar size; or None.

    Of several, one with this kernel, `mirrored` or not, then that of most similar targets.

    `setting`: algorithm, data set and architecture.
    """
    alike = [one for one in curves if (one.algorithm, one.dataset, one.architecture) == setting]

    def distance(one: Curve) -> tuple[float, bool, float]:
        other = one.mirrored != mirrored
        return abs(math.log(one.size / size)), other, abs(math.log(one.targets / targets))

    return min(alike, key=distance, default=None)


def milestones(
    curve: Curve, targets: int, step_seconds: float, most: int = 5
) -> tuple[Milestone, ...]:
    """Accuracies of the curve that were the highest so far: at most `most`, evenly, with the last.

    The planned run is assumed to need as many targets in all as the measured one, at `targets` a
    step. `step_seconds` is the measured time of its own step.
    """
    found: list[Milestone] = []
    for drawn, accuracy in curve.points:
        if drawn and (not found or accuracy > found[-1].accuracy):
            steps = math.ceil(drawn / targets)
            found.append(Milestone(accuracy, steps, steps * step_seconds))
    if len(found) <= most:
        return tuple(found)
    places = [round(i * (len(found) - 1) / (most - 1)) for i in range(most)]
    return tuple(found[place] for place in places)
