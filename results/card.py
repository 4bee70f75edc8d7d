"""The card of a row: README.md in its folder, from its figures and its set."""

import shlex
from pathlib import Path
from typing import Any

from kip_flax import export
from kip_flax.export import card
from kip_flax.networks import figures as net_figures
from results import record, words
from results.experiment import Experiment, command

CARD = "README.md"


def render(experiment: Experiment, folder: Path) -> str:
    """The text of the card of an experiment that is done; `folder` holds set and figures."""
    entry = record.read(folder)
    config = entry["config"]
    distilled = export.load_distilled(folder / entry["set"])
    dataset = words.dataset(config)
    sections = (
        card.opening(distilled, dataset),
        f"## Figures\n\n{_figures(entry)}",
        _pictures(folder),
        f"## Load\n\n{_loading(entry, distilled.preprocess is not None)}",
        f"## Preprocessing\n\n{card.preprocessing(distilled)}",
        f"## Measure again\n\n```bash\n{words.evaluation(experiment, entry)}\n```",
        f"## Make again\n\n{_made(experiment, entry, folder)}",
        f"## Licence\n\n{card.licence(dataset)}",
        f"## Limits\n\n{card.limits(distilled)}",
        f"## Citation\n\n{card.citation(config['algorithm'])}",
    )
    return "\n\n".join(sections) + "\n"


def _figures(entry: dict[str, Any]) -> str:
    config, draws = entry["config"], entry["draws"]
    kernel = card.of_kernel(config["kernel"])
    before = f"What it was made from{words.began(config)}"
    rows = [(before, draws[0]["initial"]), ("This set", draws[0]["final"])]
    lines = [
        f"| {name} | {record.percent([row['accuracy']])} | {row['mse']:.5f} |" for name, row in rows
    ]
    if len(draws) > 1:
        accuracies = record.percent([draw["final"]["accuracy"] for draw in draws])
        lines.append(f"| Mean of {len(draws)} draws | {accuracies} | |")
    for row in entry.get("network", []):
        name = f"This set, by networks ({net_figures.networks_text(row)})"
        lines.append(f"| {name} | {net_figures.spread_in_percent(row)} | |")
    if entry["published"] is not None:
        lines.append(f"| Published, on the original data | {entry['published']:g} | |")
    return (
        f"Kernel ridge regression ({kernel}; reg {config['reg']:g}) on all test images:\n\n"
        "| | Accuracy, % | Half the mean squared error |\n|---|---|---|\n"
        + "\n".join(lines)
        + "\n\n[The table of all sets](../README.md) says how steps and settings were chosen."
    )


def _pictures(folder: Path) -> str:
    text = f"![Images before and after]({record.PICTURE})"
    if (folder / record.CURVE).exists():
        text += (
            f"\n\n![Accuracy and error over the steps]({record.CURVE})\n\n"
            "*Over the steps; the circle is the set that was taken.*"
        )
    return text


def _loading(entry: dict[str, Any], whole: bool) -> str:
    """Python code that reads the set; not `whole`: its preprocessing is not in the folder."""
    dataset, name = entry["config"]["dataset"]["name"], entry["config"]["preprocess"]
    imported, fitted, note = "", "preprocess.from_arrays(file.preprocess)", ""
    if not whole:
        imported = "data, "
        fitted = f'preprocess.fit("{name}", data.load_dataset("{dataset}", "data").known_images)'
        note = (
            "\n\nThe whitening matrices (75 MB) are not kept here: the training images give them "
            "again. Images to be classified need them too: `preprocess.apply(fitted, pixels)`."
        )
    return f"""```python
from kip_flax import {imported}export, preprocess

folder = "results/{entry["name"]}"
file = export.load_distilled(f"{{folder}}/{entry["set"]}")
images, labels = file.images, file.labels
fitted = {fitted}
pictures = preprocess.invert(fitted, images)  # about [0, 1]
```{note}"""


def _made(experiment: Experiment, entry: dict[str, Any], row: Path) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in entry["versions"].items())
    wall, busy = words.hours(entry["draws"])
    data, folder = "--data=data ", " --config.dataset.data_dir=data"
    if words.is_embedded(entry["config"]):
        data = folder = ""
    again = f"python -m results.run_all {data}--results=again --only={entry['name']}"
    from_start = ""
    if before := [each.name for each in record.chain(row)[:-1]]:
        hours = record.core_seconds(row) / 3600
        from_start = (
            f" With `--whole` it begins at the start, with {', '.join(before)}: {hours:.2f} core "
            f"hours in all."
        )
    made_by = shlex.join(["python", *command(experiment, experiment.seeds[0])])
    return f"""```bash
{made_by}{folder} --workdir=runs/{entry["name"]}
```

It took {wall} hours ({busy} core hours) on {entry["hardware"]}, on {entry["date"]} at commit \
{entry["commit"]}, with {versions}. `{again}` makes it too, chooses the set and measures it on \
the test images.{from_start}"""
