"""`--mode=transfer`: networks trained on a distilled set, compared with real images."""

from kip_flax.modes.registry import Command, Mode


def _run(command: Command) -> None:
    from kip_flax.modes.transfer import mode

    mode.transfer_file(command.config, command.distilled, command.workdir, command.console)


MODE = Mode("transfer", needs=("distilled", "workdir"), run=_run)
