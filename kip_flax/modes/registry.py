"""How a mode describes itself to the command line, and the command that it gets."""

from collections.abc import Callable
from dataclasses import dataclass

from ml_collections import ConfigDict

from kip_flax.runtime.console import Console


@dataclass(frozen=True)
class Command:
    """One command, checked.

    Attributes:
        config: a valid configuration; None where the mode does without and none is given.
        workdir: folder of `--workdir`, or several with commas between them; "" if not given.
        distilled: file of `--distilled`; "" if not given.
        compare: folders and files of `--compare`.
        layout: whose layout the file of `--distilled` has.
        network, pictures: folders of `--network` and `--pictures`; "" if not given.
        console: what the mode says goes there.
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
        name: as `--mode` names it.
        needs: flags that the command must have, such as ("distilled", "workdir").
        run: does what the command says.
        wants_config: False: it needs no configuration, or finds it in the workdir.
        one_process: False: several processes may share the work.
        uses_devices: False: it computes nothing, and JAX is not set up.
    """

    name: str
    needs: tuple[str, ...]
    run: Callable[[Command], object]
    wants_config: bool = True
    one_process: bool = True
    uses_devices: bool = True
