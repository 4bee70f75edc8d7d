"""Runs the experiments that are not done, one after the other, and goes on where it stopped.

  python -m results.run_all --data=data [--runs=runs/results] [--only=NAME,NAME]
  python -m results.run_all --data=data --results=again --runs=runs/again --whole --only=NAME

Each is the command line of `main.py` at low priority; a run resumes itself. A finished experiment
leaves its set, its picture and its figures in results/NAME, and the table is made anew. The second
makes a row from the start: first the rows whose sets it goes on from.
"""

import argparse
import contextlib
import itertools
import json
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from kip_flax.modes.evaluate.mode import EVALUATION
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime import files
from kip_flax.runtime.errors import UserError, in_one_line
from results import record, table
from results.experiment import Experiment, command
from results.experiments import EXPERIMENTS

ROOT = Path(__file__).resolve().parent.parent


# (experiment, folder of the data sets' files, folder for its runs, results) -> whether the table
# of the rows changes.
Work = Callable[[Experiment, str, Path, Path], bool]


def main(argv: list[str] | None = None) -> None:
    """Runs what is missing of all experiments, or of those that `--only` names."""
    parser = make_parser(__doc__ or "", "runs/results")
    parser.add_argument(
        "--whole", action="store_true", help="and the rows whose sets these go on from"
    )
    args = parser.parse_args(argv)
    if args.whole:
        wanted = [each for each in named(args.only) if not record.is_done(each, args.results)]
        go_through([_run_from_kept], args, whole_chains(wanted))
    else:
        go_through([_run_if_missing], args, named(args.only))


def make_parser(doc: str, runs_folder: str) -> argparse.ArgumentParser:
    """The options of commands that go through the experiments.

    Args:
        doc: its first line describes the command.
        runs_folder: the default folder for runs.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--data", default="", help="folder with the data sets' files")
    parser.add_argument("--runs", type=_folder, default=runs_folder, help="folder for the runs")
    kept = ROOT / "results"
    parser.add_argument("--results", type=_folder, default=kept, help="folder for what is kept")
    parser.add_argument("--only", default="", help="names of experiments, comma separated")
    return parser


def _folder(text: str) -> Path:
    return Path(text).expanduser().absolute()


def named(only: str) -> list[Experiment]:
    """The experiments with the names in `only`, all if it is empty; exits on an unknown name."""
    names = [experiment.name for experiment in EXPERIMENTS]
    wanted = only.split(",") if only else names
    if unknown := sorted(set(wanted) - set(names)):
        sys.exit(f"error: no experiment {unknown[0]!r}: --only takes {', '.join(names)}.")
    return [experiment for experiment in EXPERIMENTS if experiment.name in wanted]


def whole_chains(experiments: list[Experiment]) -> list[Experiment]:
    """The experiments, each after those whose sets it goes on from."""
    by_name = {experiment.name: experiment for experiment in EXPERIMENTS}
    found: dict[str, Experiment] = {}
    for experiment in experiments:
        before = [by_name[experiment.start]] if experiment.start else []
        for each in (*whole_chains(before), experiment):
            found.setdefault(each.name, each)
    return list(found.values())


def go_through(
    works: Sequence[Work], args: argparse.Namespace, experiments: list[Experiment]
) -> None:
    """Does each work on all experiments, and writes the table after each; no failure stops others.

    Args:
        works: what to do with one experiment.
        args: of `make_parser`.
        experiments: in the order of the work.
    """
    failed = 0
    with alone(args.runs):
        for work, experiment in itertools.product(works, experiments):
            try:
                if work(experiment, args.data, args.runs / experiment.name, args.results):
                    table.write(args.results)
            except UserError as error:
                failed += 1
                print(f"error: {experiment.name}: {error}", file=sys.stderr, flush=True)
        if failed:
            many = len(works) * len(experiments)
            raise UserError(f"{failed} of {many} rows failed: see above.")


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Work that no other process does in `folder`; a mistake or a stop ends in one line.

    Raises:
        SystemExit: with that line.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # As it is after nohup.
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        with in_one_line(), files.locked(folder / ".lock", f"the folder {folder}"):
            yield
    except KeyboardInterrupt:
        sys.exit("stopped: the same command goes on from there.")


def _run_if_missing(experiment: Experiment, data: str, runs: Path, results: Path) -> bool:
    if record.is_done(experiment, results):
        return False
    run(experiment, data, runs, results)
    return True


def _run_from_kept(experiment: Experiment, data: str, runs: Path, results: Path) -> bool:
    """Like `_run_if_missing`, from the set that its start has in `results`."""
    if not experiment.start:
        return _run_if_missing(experiment, data, runs, results)
    if record.is_done(experiment, results):
        return False
    if not (results / experiment.start / record.FIGURES).is_file():
        raise UserError(f"it goes on from {experiment.start}, which is not there.")
    kept = Path(experiment.start, record.read(results / experiment.start)["set"])
    recorded = experiment.from_set(Path("results") / kept)  # Other machines have other folders.
    run(experiment.from_set(results / kept), data, runs, results, recorded)
    return True


def run(
    experiment: Experiment,
    data: str,
    runs: Path,
    results: Path,
    recorded: Experiment | None = None,
) -> None:
    """Runs every draw of an experiment and writes its record to `results`.

    `recorded`: the experiment as the record names it, if the folder of its start is another.
    """
    recorded = recorded or experiment
    draws = []
    for seed in experiment.seeds:
        workdir = runs / f"seed{seed}"
        program([*command(experiment, seed), *data_field(data), f"--workdir={workdir}"], workdir)
        draws.append(record.read_draw(seed, workdir))
        if draws[-1].evaluated_on != "test":
            for chosen in (draws[-1].first, draws[-1].best):
                chosen.measures = _on_test(experiment, seed, data, workdir, chosen.path)
    record.write(recorded, draws, shlex.join(command(recorded, recorded.seeds[0])), results)


def _on_test(
    experiment: Experiment, seed: int, data: str, workdir: Path, path: Path
) -> dict[str, float]:
    """Accuracy and mse of a set on all test images, measured once."""
    target = workdir / "test" / path.stem
    file = target / EVALUATION
    if not file.exists():
        options = ("--mode=evaluate", f"--distilled={path}", f"--workdir={target}")
        program([*command(experiment, seed, watched=False), *data_field(data), *options], workdir)
    measured = json.loads(file.read_text())
    return {name: measured[name] for name in ("accuracy", "mse")}


def data_field(folder: str) -> list[str]:
    """The argument that sets the folder of the data, in a list; [] if `folder` is empty."""
    return [f"--config.dataset.data_dir={folder}"] if folder else []


def _checkpoints(workdir: Path) -> list[str]:
    return sorted(path.name for path in RunFolder(workdir).checkpoints.glob("*"))


def program(arguments: list[str], workdir: Path) -> None:
    """Runs main.py, and adds its processor time and its commit to those of the run.

    Raises:
        KeyboardInterrupt: it was stopped.
        UserError: it failed.
    """
    print(f"$ python {shlex.join(arguments)}", flush=True)
    before, revision, saved = _cpu_seconds(), record.commit(), _checkpoints(workdir)
    nice = ["nice", "-n", "19", sys.executable, *arguments]
    # Ctrl-C reaches this process alone: a second signal would end the run before it has saved.
    child = subprocess.Popen(nice, cwd=ROOT, start_new_session=True)
    try:
        code = child.wait()
    except KeyboardInterrupt:
        child.terminate()
        _wait_for(child)
        raise
    finally:
        if workdir.exists():
            took_steps = _checkpoints(workdir) != saved
            record.add_part(workdir, _cpu_seconds() - before, revision if took_steps else "")
    if code:
        _give_up(arguments, code)
    if record.is_stopped(workdir):
        raise KeyboardInterrupt


def _wait_for(child: subprocess.Popen) -> None:
    """Waits until the run has saved, through further signals: its time is known only then."""
    while child.poll() is None:
        with contextlib.suppress(KeyboardInterrupt):
            child.wait()


def _give_up(arguments: list[str], code: int) -> NoReturn:
    raise UserError(f"exit code {code} of python {shlex.join(arguments)}: see its output above.")


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
