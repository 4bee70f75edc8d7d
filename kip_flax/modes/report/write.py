"""report.html: one page on a run, or on several, that needs nothing but itself.

It is made from the files of a run's folder alone (`report_facts`), so that it can be made again
anywhere. What takes data and kernel is computed once, at the end of a run (`analysis`).
"""

from collections.abc import Sequence
from pathlib import Path

from kip_flax.modes.report import facts as report_facts
from kip_flax.modes.report import page as report_page
from kip_flax.modes.report.facts import Frames
from kip_flax.runtime import files

REPORT = "report.html"
COMPARISON = "comparison.html"


def write(workdir: Path, frames: Frames, awaited: bool = False) -> None:
    """Writes report.html into the folder of a run that was evaluated at least once, atomically.

    Args:
        workdir: with the artefacts of `record`.
        frames: remembers pictures from one call to the next; empty at first.
        awaited: the page will be written again soon, though the run is finished.

    Raises:
        UserError: a file of the run is missing or broken, or the page cannot be written.
    """
    page = report_page.page([report_facts.gather(workdir, frames)], awaited)
    files.write_bytes_atomic(workdir / REPORT, page.encode())


def write_comparison(workdirs: Sequence[Path], path: Path, frames: Frames) -> None:
    """Writes a page on several runs side by side to `path`; `frames` and errors as in `write`."""
    page = report_page.page([report_facts.gather(workdir, frames) for workdir in workdirs])
    files.write_bytes_atomic(path, page.encode())
