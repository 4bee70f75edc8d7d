"""`--mode=evaluate`: test accuracy and error of a distilled set."""

from kip_flax.modes.registry import Command, Mode


def _run(command: Command) -> None:
    from kip_flax.modes.evaluate import mode

    mode.evaluate_file(command.config, command.distilled, command.workdir, command.console)


MODE = Mode("evaluate", needs=("distilled",), run=_run, one_process=False)
