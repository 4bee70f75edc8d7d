"""`--mode=export`: a distilled set in formats that other programs read."""

from kip_flax.modes.registry import Command, Mode


def _run(command: Command) -> None:
    from kip_flax.modes.export_set import mode

    mode.export_file(command.distilled, command.workdir, command.console, command.config)


MODE = Mode(
    "export", needs=("distilled", "workdir"), run=_run, wants_config=False, uses_devices=False
)
