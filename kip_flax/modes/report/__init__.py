"""`--mode=report`: the page of a run, or one page on several."""

from kip_flax.modes.registry import Command, Mode


def _run(command: Command) -> None:
    from kip_flax.modes.report import mode

    mode.write_reports(command.workdir, command.config, command.console)


MODE = Mode("report", needs=("workdir",), run=_run, wants_config=False)
