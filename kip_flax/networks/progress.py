"""What a trial records: its progress, what a training gave, and what trainings cost."""

from collections.abc import Callable
from dataclasses import dataclass, field

from kip_flax.networks.build import Tree


@dataclass(frozen=True)
class Measured:
    """What one training gave.

    Attributes:
        rate, l2: the candidate.
        seed: of weights, batches and draw.
        largest: the largest rate that its tangent kernel bears; None if it was not asked for.
        choice: whether it was one of the short trainings by which is chosen.
        accuracy: on the validation images of a choice, otherwise on the test images, 0 to 1; None
            if it diverged.
    """

    rate: float
    l2: float
    seed: int
    largest: float | None
    choice: bool
    accuracy: float | None

    @property
    def learning_rate(self) -> float:
        """The rate as an absolute number."""
        return self.rate if self.largest is None else self.rate * self.largest


@dataclass(frozen=True)
class Outcome:
    """What a trial found.

    Attributes:
        rate, l2: the candidate that was chosen.
        trained: its trainings, by seed.
        tried: the short trainings of all candidates; [] of a single one.
    """

    rate: float
    l2: float
    trained: list[Measured]
    tried: list[Measured]

    @property
    def accuracies(self) -> list[float]:
        """Test accuracies of the seeds, 0 to 1."""
        return [one.accuracy for one in self.trained if one.accuracy is not None]


@dataclass
class Progress:
    """The state of a trial: all that it needs to go on.

    Attributes:
        measured: trainings that are finished.
        states, step: of the round at work, after so many steps; None: it has not begun.
    """

    measured: list[Measured] = field(default_factory=list)
    states: Tree | None = None
    step: int = 0


@dataclass(frozen=True)
class Trained:
    """A network that a seed trained.

    Attributes:
        seed: of weights and batches.
        held_out, test: accuracies on the images that choices are made on, and on the test images.
        weights: reads its weights from the device, see `train.weights_of`.
    """

    seed: int
    held_out: float
    test: float
    weights: Callable[[], Tree]


@dataclass(frozen=True)
class Kept:
    """The progress that a trial goes on from, and the functions that keep it.

    Attributes:
        progress: where an earlier part of it ended, as `save` was given it.
        save: is called now and then, and when told to stop, with where the trial is.
        trained: is called with every network that a seed trained; None: nothing is.
    """

    progress: Progress = field(default_factory=Progress)
    save: Callable[[Progress], None] = lambda _: None
    trained: Callable[[Trained], None] | None = None


@dataclass(frozen=True)
class Cost:
    """Seconds that the trainings of a trial take, as timed; compiling is apart.

    Attributes:
        compiling: that finding it out took, most of it compiling, which is over then.
        step: of a step, on all devices at once.
        image: of an image that is evaluated, the same.
        once: for all sets together: finding the largest rates that the tangent kernels bear.
    """

    compiling: float
    step: float
    image: float
    once: float
