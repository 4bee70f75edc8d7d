"""`--mode=predict`: the classes that a network, or a distilled set, predicts for new pictures."""

from kip_flax.modes.registry import Command, Mode
from kip_flax.runtime.errors import UserError


def _check(command: Command) -> None:
    if bool(command.network) == bool(command.distilled):
        raise UserError(
            "--mode=predict needs --network=PATH, a folder with a trained network, or "
            "--distilled=PATH, a file with a set whose kernel predicts: name one of them."
        )


def _run(command: Command) -> None:
    from kip_flax.modes.predict import mode

    mode.find_pictures(command.pictures)  # A kernel may take a minute to compile.
    load = mode.load_network if command.network else mode.load_set
    classifier = load(command.network or command.distilled, command.console)
    mode.predict_pictures(classifier, command.pictures, command.workdir, command.console)


MODE = Mode(
    "predict",
    needs=("pictures", "workdir"),
    run=_run,
    takes=("network", "distilled"),
    check=_check,
    wants_config=False,
)
