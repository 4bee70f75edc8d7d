"""`--mode=compare`: distilled sets side by side."""

from kip_flax.modes.registry import Command, Mode


def _run(command: Command) -> None:
    from kip_flax.modes.compare import mode

    mode.compare(command.config, command.compare, command.workdir, command.console)


MODE = Mode("compare", needs=("compare", "workdir"), run=_run)
