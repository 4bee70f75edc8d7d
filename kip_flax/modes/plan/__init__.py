"""`--mode=plan`: the time and memory that a run will need."""

from kip_flax.modes.registry import Command, Mode


def _run(command: Command) -> None:
    from kip_flax.modes.plan import mode

    mode.plan_run(command.config, command.console)


MODE = Mode("plan", needs=(), run=_run)
