"""docs/configurations.md: each file in configs/ with its docstring and its measured results.

python -m results.configurations   writes it anew
"""

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kip_flax import algorithms
from kip_flax import config as config_lib
from kip_flax.runtime import files
from results import record, words
from results.experiment import Experiment
from results.experiments import EXPERIMENTS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "configurations.md"
_HEAD = """# Configurations

For readers who look for a run to start from, and what it reaches. One file in `configs/` is one
experiment; `configs/default.py` has every field with a comment. A field is set on the command line:
`--config.support.size=100`.

A row with a name is a file: what its docstring says. Rows below it are the same file with other
fields, measured once, each linked to its set in the [gallery](gallery.md); the set's card has the
whole command. Most rows hold out a tenth of the training images (`dataset.validation=0.1`).
Accuracies are of all test images in %, from the start to the set, by kernel ridge
regression unless a row names a network. *Networks*, *normalised*: five ConvNet-3 of width 128 that
are trained on the set, without and with instance normalisation. Published ones are the papers', on
original data; the CIFAR-10 here is a JPEG copy. Core hours are of two cores without an accelerator,
without those of a set that a row goes on from.
Written by `python -m results.configurations`.

## Which of three ways

`kip`, `kip_solve` and `kip_newton` minimise the same loss ([The method](method.md)). `kip` takes
gradient steps on images and labels, as the papers do. `kip_solve` solves for the labels at every
step. `kip_newton` does that too and takes few, large Gauss-Newton steps on the images; with
`support.learn_labels=False` it keeps the labels. Ten images, all by the plain kernel
(`kernel.mirrored=False`):

"""
_COLUMNS = ("Name", "What", "Published", "Measured")
_THREE = ("kip", "kip_solve", "kip_newton")
_ORDER = (
    "kip",
    "kip_newton",
    "dp_kip",
    "ls",
    "rfad",
    "frepo",
    "bptt",
    "dc",
    "dsa",
)  # Others come after.
# Fields that do not change the method: evaluation and records.
_NOT_THE_METHOD = ("eval.", "dataset.validation", "checkpoint.", "report.", "log.")


@dataclass(frozen=True)
class Configuration:
    """A file in configs/.

    Attributes:
        name: of the file, without .py.
        what, expected, measured: from its docstring.
        fields: all fields with their values, by dotted name.
    """

    name: str
    what: str
    expected: str
    measured: str
    fields: Mapping[str, Any]


def read() -> list[Configuration]:
    """All experiments in configs/, sorted by algorithm, data set and name."""
    names = sorted(path.stem for path in (ROOT / "configs").glob("[!_]*.py"))
    found = [_read(name) for name in names if name != "default"]
    order = [*_ORDER, *sorted({one.fields["algorithm"] for one in found} - {*_ORDER})]
    datasets = list(words.DATASETS)

    def place(one: Configuration) -> tuple[int, int, str]:
        name = one.fields["dataset.name"]
        dataset = datasets.index(name) if name in datasets else len(datasets)
        return order.index(one.fields["algorithm"]), dataset, one.name

    return sorted(found, key=place)


def _read(name: str) -> Configuration:
    module = importlib.import_module(f"configs.{name}")
    text = module.__doc__ or ""
    match = re.search(r"^Expected: (.*?)^Measured: (.*?)^$", text, re.MULTILINE | re.DOTALL)
    if match is None:
        raise ValueError(f"the docstring of configs/{name}.py lacks 'Expected:' or 'Measured:'")
    expected, measured = (" ".join(part.split()) for part in match.groups())
    fields = config_lib.flatten(module.get_config())
    return Configuration(name, text.splitlines()[0].rstrip("."), expected, measured, fields)


def render(results: Path) -> str:
    """The page, from configs/ and the folder `results`."""
    found = read()
    text = _HEAD + _three(results)
    for algorithm in dict.fromkeys(one.fields["algorithm"] for one in found):
        facts = algorithms.facts(algorithm)
        text += f"\n## {facts.name}\n\n"
        text += f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|\n"
        for one in found:
            if one.fields["algorithm"] == algorithm:
                cells = (f"`{one.name}`", one.what, one.expected, one.measured)
                text += _line(*cells) + "".join(_changes(one, results))
    return text


def _line(*cells: str) -> str:
    return f"| {' | '.join(_cell(text) for text in cells)} |\n"


def _cell(text: str) -> str:
    """Text of a docstring, adapted to a table of this page."""
    for original, here in (
        ("->", "to"),
        (" (docs/configurations.md)", ""),
        ("docs/configurations.md", "below"),
    ):
        text = text.replace(original, here)
    return text


def _changes(one: Configuration, results: Path) -> list[str]:
    """Table lines of the finished experiments that use a configuration."""
    return [
        _line("", _changed(one, experiment), _published(experiment), _measured(entry))
        for experiment in EXPERIMENTS
        if experiment.config == one.name and record.is_done(experiment, results)
        for entry in [record.read(results / experiment.name)]
    ]


def _changed(one: Configuration, experiment: Experiment) -> str:
    """The fields in which an experiment differs from its configuration."""
    changed = [
        f"on from `{Path(value).parent.name}`"
        if name == "support.init" and str(value).startswith("results/")
        else f"`{name}={value}`".replace(" ", "")
        for name, value in experiment.fields.items()
        if not name.startswith(_NOT_THE_METHOD) and value != one.fields[name]
    ]
    draws = f"{len(experiment.seeds)} draws" if len(experiment.seeds) > 1 else ""
    return ", ".join(filter(None, (*changed, draws))) or "as it is"


def _published(experiment: Experiment) -> str:
    return "" if experiment.published is None else f"{experiment.published:g}"


def _measured(entry: dict[str, Any]) -> str:
    """'39.96 to 93.42, networks 90.00 ± 1.00; 0.60 core hours', linked to the gallery."""
    draws = entry["draws"]
    before, after = (
        record.percent([draw[part]["accuracy"] for draw in draws]) for part in ("initial", "final")
    )
    plain, normalised = words.by_networks(entry)
    networks = f", networks {plain}" if plain else ""
    networks += f", normalised {normalised}" if normalised else ""
    _, busy = words.hours(draws)
    return f"[{before} to {after}](gallery.md#{entry['name']}){networks}; {busy} core hours"


def _three(results: Path) -> str:
    """The table of three algorithms on ten images of two data sets."""
    lines = ["| | Data | KRR | Steps | Core hours | Published |", "|---|---|---|---|---|---|"]
    for dataset in ("mnist", "cifar10"):
        for name in _THREE:
            entry = record.read(results / f"{name}_{dataset}_10")
            (draw,) = entry["draws"]
            _, busy = words.hours([draw])
            cells = (
                f"`{name}`",
                words.dataset(entry["config"]),
                record.percent([draw["final"]["accuracy"]]),
                str(draw["step"]),
                busy,
                f"{entry['published']:g}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    files.write_bytes_atomic(PAGE, render(ROOT / "results").encode())
