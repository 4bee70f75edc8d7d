"""`--mode=predict`: the classes that a trained network predicts for new pictures."""

from kip_flax.modes.registry import Command, Mode


def _run(command: Command) -> None:
    from kip_flax.modes.predict import mode

    mode.predict_pictures(command.network, command.pictures, command.workdir, command.console)


MODE = Mode("predict", needs=("network", "pictures", "workdir"), run=_run, wants_config=False)
