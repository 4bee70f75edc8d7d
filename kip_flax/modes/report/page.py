"""The page of a run: first the learned images, their accuracy and cost, then the details.

It is made from the files in a run's folder alone, so it can be made again anywhere. Results that
need data and kernel are computed once, at the end of a run (`runs.analysis`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from kip_flax import __version__
from kip_flax.modes import pages
from kip_flax.modes.report import comparison, images, results
from kip_flax.modes.report import facts as report_facts
from kip_flax.modes.report.facts import Frames, RunFacts
from kip_flax.modes.report.images import Style
from kip_flax.networks import figures as network_figures
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime import files

COMPARISON = "comparison.html"
_RELOAD_SECONDS = 15
_RELOADS = 'data-reload="'  # In a page that reloads itself.


def write(workdir: Path, frames: Frames, awaited: bool = False) -> None:
    """Writes report.html into the folder of a run that was evaluated at least once, atomically.

    Args:
        workdir: folder of the run.
        frames: keeps pictures from one call to the next; empty at first.
        awaited: whether the page of a finished run will be written again soon.

    Raises:
        UserError: a file of the run is missing or broken, or the page cannot be written.
    """
    html = page([report_facts.gather(workdir, frames)], awaited)
    files.write_bytes_atomic(RunFolder(workdir).report, html.encode(errors="replace"))


def write_comparison(workdirs: Sequence[Path], path: Path, frames: Frames) -> None:
    """Writes a page on several runs side by side to `path`; `frames` and errors as in `write`."""
    html = page([report_facts.gather(workdir, frames) for workdir in workdirs])
    files.write_bytes_atomic(path, html.encode(errors="replace"))


class Section(NamedTuple):
    """A part of the page on a run; the template of the same name shows its content."""

    name: str
    title: str
    content: Any = None


@dataclass(frozen=True, eq=False)
class Article:
    """The part of the page on one run.

    Attributes:
        facts: the run.
        uid: unique in the page.
        size: images of the support.
        status: the run's status and step, in words.
        reached: heading, accuracy and note of each network trained on the last set; name,
            'diverged' and the images tested on if it diverged.
        one_picture: whether a card shows one picture, as the images did not change.
        style: style of the pictures; None if there are none.
        sections: the parts of the article.
    """

    facts: RunFacts
    uid: str
    size: int
    status: str
    reached: list[tuple[str, str, str]]
    one_picture: bool
    style: Style | None
    sections: tuple[Section, ...]


def reloads(workdir: Path) -> bool:
    """Whether there is a page that reloads itself: it was to be written again."""
    path = RunFolder(workdir).report
    return path.is_file() and _RELOADS in path.read_text(encoding="utf-8")


def page(runs: Sequence[RunFacts], awaited: bool = False) -> str:
    """HTML of one run, or of several side by side.

    The page reloads itself if `awaited` (it will be written again) or if its one run is at work.
    """
    several = len(runs) > 1
    return pages.render(
        __package__,
        "report.html.jinja",
        articles=[_article(run, f"r{n}") for n, run in enumerate(runs)],
        comparison=comparison.compare(runs) if several else None,
        awaited=awaited or (runs[0].running and not several),
        reload_seconds=_RELOAD_SECONDS,
        now=datetime.now(UTC),
        version=__version__,
    )


def _article(run: RunFacts, uid: str) -> Article:
    return Article(
        facts=run,
        uid=uid,
        size=run.size or int(run.config["support.size"]),
        status=_status(run),
        reached=[_reached(row) for row in run.reached],
        one_picture=bool(run.frames) and not run.images_changed,
        style=images.style(run) if run.frames else None,
        sections=tuple(_sections(run, uid)),
    )


def _reached(row: network_figures.Row) -> tuple[str, str, str]:
    if row["mean"] is None:
        return row["network"], "diverged", network_figures.words(row["on"])
    deviation = f"± {100 * row['std']:.2f}; " if row["std"] is not None else ""
    note = f"{deviation}{network_figures.networks_text(row)}, {network_figures.words(row['on'])}"
    return "By networks", pages.percent(row["mean"]), note


def _sections(run: RunFacts, uid: str) -> list[Section]:
    shown = images.learned(run) if run.frames else None
    sections = [
        Section("Images", "What was learned", shown),
        Section("Curves", "How it went", results.curves(run, uid)),
    ]
    if run.analysis is not None:
        sections += [
            Section("Mistakes", "What it gets right and wrong", results.mistakes(run, uid)),
            Section("Neighbours", "The nearest real images", images.neighbours(run)),
            Section("Spectrum", "Spectrum of the kernel", results.spectrum(run, uid)),
        ]
    if run.files:
        sections.append(Section("Loading", "Load the set", run.files[max(run.files)]))
    differing = [
        (name, value, run.defaults.get(name, pages.NONE))
        for name, value in run.config.items()
        if value != run.defaults.get(name)
    ]
    return [
        *sections,
        Section("Configuration", "Configuration", differing),
        Section("Cost", "Time, hardware, versions"),
    ]


def _status(run: RunFacts) -> str:
    step = int(max([run.evaluations[-1]["step"], *(row["step"] for row in run.history[-1:])]))
    steps_counted = run.algorithm.unit == "step"  # By num_steps; otherwise by the data.
    if run.running and steps_counted:
        total = pages.number(run.config["num_steps"])
        return f"running, step {pages.number(step)} of {total}"
    return f"{run.result['status']} at step {pages.number(step)}"
