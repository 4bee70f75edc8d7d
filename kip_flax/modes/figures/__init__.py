"""`--mode=figures`: figures of runs and transfers for papers."""

from kip_flax.modes.registry import Command, Mode


def _run(command: Command) -> None:
    from kip_flax.modes.figures import mode

    mode.write_figures(command.workdir, command.console)


MODE = Mode("figures", needs=("workdir",), run=_run, wants_config=False, uses_devices=False)
