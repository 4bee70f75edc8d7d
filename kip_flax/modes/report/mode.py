"""`--mode=report`: writes the page of a run again, or one page on several runs.

A missing analysis of a run is computed if its data can be found.
"""

from pathlib import Path

from ml_collections import ConfigDict

from kip_flax import config as config_lib
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.modes.report import facts as report_facts
from kip_flax.modes.report import page as report
from kip_flax.modes.report.facts import Frames, RunFacts
from kip_flax.runs import analysis, setup
from kip_flax.runs.folder import RunFolder, folder_of_all, named_folders
from kip_flax.runs.record import CHECKSUM, TESTS_CHECKSUM
from kip_flax.runtime import sharding
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError


@sharding.with_float64
def write_reports(workdirs: str, given: ConfigDict | None, console: Console | None = None) -> Path:
    """Writes report.html into each folder; for several also comparison.html (`folder_of_all`).

    Args:
        workdirs: folders of runs, separated by commas.
        given: a configuration of the same experiment, for example with another folder of the data;
            None takes the one in each folder.

    Returns:
        The path of the page, or of comparison.html for several folders.

    Raises:
        UserError: a folder is named twice or not at all, holds no run, or one of another experiment
            than `given`.
    """
    console = console or Console()
    folders = named_folders(workdirs)
    # Mistakes are reported before anything is computed.
    configs = [_config(folder, given) for folder in folders]
    frames: Frames = {}
    runs = [report_facts.gather(folder, frames) for folder in folders]
    for run, config in zip(runs, configs, strict=True):
        _add_analysis(run, config, console)
        report.write(run.workdir, frames)
    if len(folders) == 1:
        page = RunFolder(folders[0]).report
    else:
        page = folder_of_all(folders) / report.COMPARISON
        report.write_comparison(folders, page, frames)
    console.outcome(f"report  {page}")
    return page


def _add_analysis(run: RunFacts, config: ConfigDict, console: Console) -> None:
    """Computes a missing analysis; prints the reason if it cannot, such as a run at work."""
    wanted = "report" not in config or config.report.num_train  # Older runs do not say it.
    if not wanted or run.analysis is not None:
        return
    folder = RunFolder(run.workdir)
    try:
        config_lib.validate(config)  # Not before: the page itself needs no valid configuration.
        with folder.locked():
            dataset = setup.load(config)
            config_lib.check_data(config, dataset)
            known = folder.result().get("data", {})  # Old runs say less.
            own = {
                CHECKSUM: setup.fingerprint(dataset),
                TESTS_CHECKSUM: setup.fingerprint_of_tests(dataset),
            }
            if any(known.get(name, value) != value for name, value in own.items()):
                raise UserError(
                    "its data are others now: set --config.dataset.data_dir to its own."
                )
            mesh = sharding.make_mesh(config.mesh.data, config.mesh.support)
            kernel = shard_kernel(setup.make_kernel(config, console), mesh)
            fitted = folder.preprocessing()
            analysis.analyse_run(folder, config, dataset, fitted, kernel, mesh)
    except UserError as error:
        console.say(f"without an analysis of {run.workdir}: {error}")


def _config(workdir: Path, given: ConfigDict | None) -> ConfigDict:
    folder = RunFolder(workdir)
    folder.result()  # Raises UserError if there is no run.
    saved = folder.config()
    if given is not None:
        if saved.get("time_limit") and config_lib.length_decides(given):
            given = given.copy_and_resolve_references()
            given.num_steps = saved["num_steps"]  # The time limit may have shortened the schedule.
        config_lib.check_same_experiment(saved, given, str(workdir))
        return given
    # Fields newer than the run get their defaults, if configs/default.py can be imported.
    flat = report_facts.defaults() | config_lib.flatten(saved)
    return ConfigDict(config_lib.unflatten(flat))
