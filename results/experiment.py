"""What an experiment is, and its command line."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

# Fields of the evaluations during a run; an evaluation on the test images leaves them out.
_ONLY_WATCHED = ("dataset.validation", "eval.")


@dataclass(frozen=True)
class Experiment:
    """A row of the table.

    Attributes:
        name: its folder in results/.
        config: name of its configuration, without configs/ and .py.
        fields: fields that differ from the configuration, by dotted name.
        published: the papers' test accuracy in %, on the original data; None if there is none.
        seeds: one run for each; the row is their mean. They stand in no other place.

    Raises:
        ValueError: `fields` has a seed.
    """

    name: str
    config: str
    fields: dict[str, Any] = field(default_factory=dict)
    published: float | None = None
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if "seed" in self.fields:
            raise ValueError(f"{self.name}: pass the seed as one of `seeds`.")

    @property
    def start(self) -> str:
        """The name of the row whose set this one begins with; '' if it is of none."""
        folder, _, rest = str(self.fields.get("support.init", "")).partition("/")
        return rest.partition("/")[0] if folder == "results" else ""

    def from_set(self, path: Path) -> "Experiment":
        """The experiment from the set in a file."""
        return replace(self, fields=self.fields | {"support.init": str(path)})


def command(experiment: Experiment, seed: int, watched: bool = True) -> list[str]:
    """Command line of a run without its folders; not `watched`: of an evaluation on test images."""
    fields = {
        name: value
        for name, value in experiment.fields.items()
        if watched or not name.startswith(_ONLY_WATCHED)
    }
    fields |= {"seed": seed} if seed else {}
    return [
        *("main.py", f"--config=configs/{experiment.config}.py"),
        *arguments(fields),
    ]


def arguments(fields: Mapping[str, Any]) -> list[str]:
    """Fields by dotted name as arguments of `main.py`."""
    return [f"--config.{name}={_text(value)}" for name, value in fields.items()]


def _text(value: Any) -> str:
    return str(value).replace(" ", "") if isinstance(value, tuple) else str(value)
