"""`--mode=transfer`: what a distilled set is worth to networks."""

from kip_flax.modes.registry import Command, Mode


def _run(command: Command) -> None:
    from kip_flax.modes.transfer import mode

    mode.transfer_file(command.config, command.distilled, command.workdir, command.console)


MODE = Mode("transfer", needs=("distilled", "workdir"), run=_run)
