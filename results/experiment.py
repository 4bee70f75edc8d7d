"""What an experiment is, and its command line."""

from dataclasses import dataclass, field
from typing import Any

# Fields of the evaluations during a run; an evaluation on the test images leaves them out.
_WATCHING = ("dataset.validation", "eval.")


@dataclass(frozen=True)
class Experiment:
    """A row of the table.

    Attributes:
        name: its folder in results/.
        config: name of its configuration, without configs/ and .py.
        fields: fields that differ from the configuration, by dotted name.
        published: the papers' test accuracy in %, on the original data; None if there is none.
        seeds: one run for each; the row is their mean.
    """

    name: str
    config: str
    fields: dict[str, Any] = field(default_factory=dict)
    published: float | None = None
    seeds: tuple[int, ...] = (0,)


def command(experiment: Experiment, seed: int, watched: bool = True) -> list[str]:
    """Command line of a run without its folders; not `watched`: of an evaluation on test images."""
    fields = {
        name: value
        for name, value in experiment.fields.items()
        if watched or not name.startswith(_WATCHING)
    }
    fields |= {"seed": seed} if seed else {}
    return [
        *("main.py", f"--config=configs/{experiment.config}.py"),
        *(f"--config.{name}={value}".replace(" ", "") for name, value in fields.items()),
    ]
