"""`--mode=import`: a distilled set of another project in our format."""

from kip_flax.modes.registry import Command, Mode


def _run(command: Command) -> None:
    from kip_flax.modes.import_set import mode

    mode.import_file(
        command.config, command.distilled, command.workdir, command.layout, command.console
    )


MODE = Mode("import", needs=("distilled", "workdir"), run=_run, takes=("layout",))
