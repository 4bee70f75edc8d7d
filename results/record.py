"""The record of an experiment in results/NAME: figures.json, set and pictures."""

import datetime
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kip_flax import algorithms, export, preprocess
from kip_flax.export import pictures
from kip_flax.modes.figures.draw import FEWEST_FOR_CURVE, curve_figure, rendered
from kip_flax.networks import figures as net_figures
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime import files
from kip_flax.runtime.errors import UserError
from results.experiment import Experiment

FIGURES = "figures.json"
PICTURE = "images.png"
CURVE = "curve.png"
SHOWN = 20  # images in the picture
_CPU = "cpu_seconds.json"
_COMMITS = "commits.json"


@dataclass
class Chosen:
    """A set of a run: its file, its step, and its `accuracy` (0 to 1) and `mse` on test images."""

    path: Path
    step: int
    measures: dict[str, float]


@dataclass(frozen=True)
class Draw:
    """One run: its first set, and the one that `chosen_evaluation` takes."""

    seed: int
    workdir: Path
    evaluated_on: str
    first: Chosen
    best: Chosen
    result: dict[str, Any]


def read_draw(seed: int, workdir: Path) -> Draw:
    """A finished run with its first and its chosen set; UserError if a file is missing."""
    folder = RunFolder(workdir)
    result = folder.result()
    rows = result["evaluations"]
    on = result["evaluated_on"]
    best = chosen_evaluation(rows, on, algorithms.facts(folder.config()["algorithm"]))
    sets = folder.distilled()
    if lost := {rows[0]["step"], best["step"]} - sets.keys():
        raise UserError(
            f"{workdir} lacks the set of step {min(lost)}: remove the folder and run it again."
        )
    first, chosen = (
        Chosen(
            sets[row["step"]],
            row["step"],
            {name: row[name] for name in ("accuracy", "mse")},
        )
        for row in (rows[0], best)
    )
    return Draw(seed, workdir, on, first, chosen, result)


def chosen_evaluation(
    rows: list[dict[str, Any]], on: str, facts: algorithms.Facts
) -> dict[str, Any]:
    """The evaluation whose set is taken: the last one, unless validation images choose.

    Of sets for the kernel they choose the one with the least error, because accuracies on some
    thousand images do not separate neighbouring steps. Of sets for networks they choose the one
    with the highest accuracy of networks (the mean of all that were trained on it). Other
    algorithms take the last one.

    Args:
        rows: evaluations of a run.
        on: the images that the kernel was evaluated on, 'validation' or 'test'.
        facts: facts of the algorithm.
    """
    if on == "test":
        return rows[-1]
    if facts.for_networks:
        means = [(net_figures.watched_mean(row.get("networks", [])), row) for row in rows]
        scored = [(mean, row) for mean, row in means if mean is not None]
        return max(scored, key=lambda pair: pair[0])[1] if scored else rows[-1]
    return min(rows, key=lambda row: row["mse"]) if facts.uses_kernel else rows[-1]


def write(experiment: Experiment, draws: list[Draw], command: str, results: Path) -> None:
    """Writes results/NAME: set, picture and curve of the first draw, figures.json of all."""
    folder = results / experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    first, best = draws[0].first.path, draws[0].best.path
    files.write_bytes_atomic(folder / best.name, best.read_bytes())
    _write_picture(folder / PICTURE, first, best)
    rows = [
        {
            "seed": draw.seed,
            "initial": draw.first.measures,
            "final": draw.best.measures,
            "step": draw.best.step,
            "watched": {"on": draw.evaluated_on, "evaluations": draw.result["evaluations"]},
            "seconds": draw.result["seconds"],
            "cpu_seconds": _read_cpu_seconds(draw.workdir),
        }
        for draw in draws
    ]
    config = RunFolder(draws[0].workdir).config()
    config["dataset"]["data_dir"] = ""  # Of no use to others.
    config["support"]["init"] = experiment.fields.get("support.init", config["support"]["init"])
    content = {
        "name": experiment.name,
        "config": config,
        "command": f"python {command}",
        "published": experiment.published,
        "set": best.name,
        "draws": rows,
        "hardware": draws[0].result["hardware"],
        "versions": draws[0].result["versions"],
        "commit": ", then ".join(
            dict.fromkeys(revision for draw in draws for revision in _commits(draw.workdir))
        )
        or commit(),
        "date": datetime.date.today().isoformat(),
    }
    _write_curve(folder / CURVE, rows[0])
    files.write_json(folder / FIGURES, content)  # With it the row is done.
    for other in set(folder.glob("*.npz")) - {folder / best.name}:
        other.unlink()


def read(folder: Path) -> dict[str, Any]:
    """The content of figures.json in results/NAME."""
    return json.loads((folder / FIGURES).read_text())


def is_done(experiment: Experiment, results: Path) -> bool:
    """Whether results/NAME has the figures of all draws."""
    try:
        seeds = [draw["seed"] for draw in read(results / experiment.name)["draws"]]
    except FileNotFoundError:
        return False
    return seeds == list(experiment.seeds)


def add_network(folder: Path, row: net_figures.Row) -> None:
    """Adds a network's accuracies on the set to figures.json.

    Args:
        folder: results/NAME.
        row: as in `networks.figures`, with `seeds` (their number), `seconds` and `hardware`.
    """
    entry = {**row, "commit": commit(), "date": datetime.date.today().isoformat()}
    before = read(folder)
    files.write_json(folder / FIGURES, {**before, "network": [*before.get("network", []), entry]})


def is_stopped(workdir: Path) -> bool:
    """Whether a signal stopped the run there before its end."""
    return RunFolder(workdir).earlier_result().get("status") == "stopped"


def chain(folder: Path) -> list[Path]:
    """The folders of the rows that a row goes on from, from set to set, and its own; oldest first.

    A row whose start is not beside it went on from one in this repository.

    Args:
        folder: results/NAME.
    """
    name = Path(read(folder)["config"]["support"]["init"]).parent.name
    if not name:
        return [folder]
    beside = folder.with_name(name)
    start = beside if (beside / FIGURES).is_file() else Path(__file__).resolve().parent / name
    return [*chain(start), folder]


def core_seconds(folder: Path) -> float:
    """Core seconds of the first draw of a row, with those of the rows that it goes on from."""
    return sum(float(read(row)["draws"][0]["cpu_seconds"]) for row in chain(folder))


def add_part(workdir: Path, seconds: float, revision: str) -> None:
    """Adds a part of a run to what is known of it: its processor time, and its commit.

    `revision` is '' if the part took no step.
    """
    total = (_read_cpu_seconds(workdir) or 0.0) + seconds
    files.write_json(workdir / _CPU, round(total, 1))
    if revision:
        files.write_json(workdir / _COMMITS, list(dict.fromkeys([*_commits(workdir), revision])))


def _commits(workdir: Path) -> list[str]:
    path = workdir / _COMMITS
    return json.loads(path.read_text()) if path.exists() else []


def _read_cpu_seconds(workdir: Path) -> float | None:
    path = workdir / _CPU
    return json.loads(path.read_text()) if path.exists() else None


def _write_picture(path: Path, first: Path, best: Path) -> None:
    before, after = export.load_distilled(first), export.load_distilled(best)
    if after.preprocess is None or after.meta is None:
        raise UserError(f"{best} has lost its preprocessing: run the experiment again.")
    fitted = preprocess.from_arrays(after.preprocess)
    grid = pictures.draw_image_grid(
        preprocess.invert(fitted, before.images[:SHOWN]),
        preprocess.invert(fitted, after.images[:SHOWN]),
        before.labels[:SHOWN],
        after.labels[:SHOWN],
        after.meta["class_names"],
    )
    pictures.write_png(path, grid)


def _write_curve(path: Path, draw: dict[str, Any]) -> None:
    watched = draw["watched"]
    path.unlink(missing_ok=True)
    if len(watched["evaluations"]) >= FEWEST_FOR_CURVE:
        figure = curve_figure(watched["evaluations"], watched["on"], draw["step"])
        files.write_bytes_atomic(path, rendered(figure, "png"))


def percent(shares: list[float], form: str = ".2f") -> str:
    """'86.24 ± 1.60': mean and deviation (n - 1) in % of shares (0 to 1); '86.24' for one."""
    values = [100 * share for share in shares]
    spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):{form}}{spread}"


_WRITTEN = (":!results/*.md", ":!results/*.json", ":!results/*/*")


def commit(repository: Path = Path(__file__).parent.parent) -> str:
    """The commit, with '-dirty' if its files differ, but for those of results that rows write."""

    def git(*words: str) -> str:
        try:
            process = subprocess.run(
                ["git", *words], cwd=repository, capture_output=True, text=True, check=False
            )
        except FileNotFoundError:  # There is no git.
            return ""
        return process.stdout.strip()

    name = git("describe", "--always")
    changed = git("status", "--porcelain", "-uno", "--", ".", *_WRITTEN)
    return (f"{name}-dirty" if changed else name) or "unknown"
