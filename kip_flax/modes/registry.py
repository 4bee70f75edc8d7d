"""How a mode describes itself to the command line, and the command that it gets."""

from collections.abc import Callable
from dataclasses import dataclass

from ml_collections import ConfigDict

from kip_flax.runtime.console import Console


@dataclass(frozen=True)
class Command:
    """One command, checked.

    Attributes:
        config: a valid configuration; None if the mode needs none and none is given.
        workdir: folder of `--workdir`, or several with commas between them; "" if not given.
        distilled: file of `--distilled`; "" if not given.
        compare: folders and files of `--compare`.
        layout: layout of the file of `--distilled`, see `export.layouts`; or 'auto'.
        network, pictures: folders of `--network` and `--pictures`; "" if not given.
        console: prints the mode's output.
    """

    config: ConfigDict
    workdir: str
    distilled: str
    compare: tuple[str, ...]
    layout: str
    network: str
    pictures: str
    console: Console


@dataclass(frozen=True)
class Mode:
    """A mode's name, its needs, and its function.

    Attributes:
        name: its name in `--mode`.
        needs: flags that the command must have, such as ("distilled", "workdir").
        run: carries out the command.
        takes: flags that it may have besides.
        check: raises UserError for mistakes that show before any device is set up.
        wants_config: False if it needs no configuration, or finds one in the workdir.
        one_process: False if several processes may share the work.
        uses_devices: False if it computes nothing; JAX is then not set up.
    """

    name: str
    needs: tuple[str, ...]
    run: Callable[[Command], object]
    takes: tuple[str, ...] = ()
    check: Callable[[Command], None] | None = None
    wants_config: bool = True
    one_process: bool = True
    uses_devices: bool = True
