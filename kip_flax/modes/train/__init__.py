"""`--mode=train`: a run, from its configuration to its files."""

from kip_flax.modes.registry import Command, Mode


def _run(command: Command) -> None:
    from kip_flax.modes.train import mode

    mode.train_and_evaluate(command.config, command.workdir, command.console)


MODE = Mode("train", needs=("workdir",), run=_run, one_process=False)
