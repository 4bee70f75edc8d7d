"""`--mode=compare`: distilled sets side by side."""

from kip_flax.modes.registry import Command, Mode
from kip_flax.runtime.errors import UserError


def _check(command: Command) -> None:
    if not all(command.compare):
        raise UserError(
            f"--compare={','.join(command.compare)} has an empty entry: name folders of runs or "
            f"files, with a comma between two."
        )


def _run(command: Command) -> None:
    from kip_flax.modes.compare import mode

    mode.compare(command.config, command.compare, command.workdir, command.console)


MODE = Mode("compare", needs=("compare", "workdir"), run=_run, check=_check)
