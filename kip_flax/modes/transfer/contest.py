"""What sets are measured with: networks and kernels by their names in `transfer.networks`."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kip_flax import config as config_lib
from kip_flax.data import Dataset, augment
from kip_flax.kernels import Kernel
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.modes.transfer import rows
from kip_flax.modes.transfer.session import Session
from kip_flax.modes.transfer.sets import ImageSet, RealImages
from kip_flax.modes.transfer.table import Table, line
from kip_flax.networks import build, train, zoo
from kip_flax.networks.recipe import KRR, is_kernel, spec_of
from kip_flax.runs import setup
from kip_flax.runtime.console import Console

# Fields that say which rows there are, or how they are computed, but not what comes out.
_FREE = (
    *("transfer.networks", "transfer.baselines", "transfer.ladder", "transfer.every_steps"),
    *("transfer.eval_batch_size", "dataset.data_dir", "kernel.implementation"),
)


@dataclass(frozen=True, eq=False)
class Contest:
    """Contenders, and how they are measured.

    Attributes:
        names: of the contenders, in the table's order.
        kernels, makers: kernels, over the mesh, and what makes networks, by their names.
        reg, batch_size: of kernel ridge regression.
        protocol: of networks.
        mesh: the devices.
    """

    names: tuple[str, ...]
    kernels: dict[str, Kernel]
    makers: dict[str, build.Make]
    reg: float
    batch_size: int
    protocol: rows.Protocol
    mesh: Mesh

    def contender(self, name: str, real: RealImages, session: Session) -> rows.Contender:
        """What computes the rows of `name`; nothing is computed before it is asked."""
        if name in self.kernels:
            return rows.krr_row(
                real.test,
                self.kernels[name],
                reg=self.reg,
                batch_size=self.batch_size,
                mesh=self.mesh,
            )
        make = self.makers[name]
        return rows.network_row(name, make, self.protocol, real, self.mesh, session)

    def fill(
        self, table: Table, sets: Sequence[ImageSet], real: RealImages, session: Session
    ) -> bool:
        """Computes the rows that are not in the table; False when told to stop before the last.

        A training that diverges is noted in the table, and the others go on.
        """
        for name in self.names:
            missing = [s for s in sets if not table.has(s.name, s.size, name)]
            if not missing:
                continue
            contender = self.contender(name, real, session)
            for image_set in missing:
                try:
                    row = None if session.stopping() else contender(image_set)
                except rows.Diverged as error:
                    table.add_diverged(image_set.name, image_set.size, name)
                    session.console.say(f"{error}: diverged")
                    continue
                if row is None:
                    return False
                table.add({"set": image_set.name, "size": image_set.size, "network": name, **row})
                session.console.say(line(table.rows[-1]))
        return True


def make_contest(
    config: ConfigDict, dataset: Dataset, key: jax.Array, mesh: Mesh, console: Console
) -> Contest:
    """The contest that a valid configuration describes; its kernels are compiled ahead.

    Args:
        config: the configuration.
        dataset: tells the shape of images and the number of classes.
        key: of the networks' weights and batches.
        mesh: the devices.
        console: is told if compiling takes long.

    Raises:
        UserError: the images are too small for one of the contenders.
    """
    names = config.transfer.networks
    makers = {name: _maker(config, name, dataset) for name in names if not is_kernel(name)}
    asked = [name for name in names if is_kernel(name)]
    if "label_solve" in config.transfer.baselines and KRR not in asked:
        asked.append(KRR)
    configs = {name: kernel_config(config, name) for name in asked}
    for one in configs.values():
        config_lib.check_pools(one, dataset)
    kernels = {
        name: shard_kernel(setup.make_kernel(one, console), mesh) for name, one in configs.items()
    }
    return Contest(
        tuple(names),
        kernels,
        makers,
        config.reg,
        config.eval.batch_size,
        _protocol(config.transfer, key),
        mesh,
    )


def deciding(config: ConfigDict) -> dict[str, Any]:
    """The fields, by dotted name, that decide what a row of the table says."""
    nested = {name: config[name] for name in ("dataset", "kernel", "transfer")}
    flat = config_lib.flatten(nested)
    flat |= {name: config[name] for name in ("seed", "preprocess", "reg")}
    flat["eval.num_test"] = config.eval.num_test
    if config.transfer.augment_draw == "all":  # As tables say that were begun without the field.
        del flat["transfer.augment_draw"]
    return {name: value for name, value in flat.items() if name not in _FREE}


def kernel_config(config: ConfigDict, name: str) -> ConfigDict:
    """The configuration with the kernel that 'krr' (its own) or 'krr:fc:1' stands for."""
    _, _, rest = name.partition(":")
    if not rest:
        return config
    kind, _, number = rest.partition(":")
    changed = config.copy_and_resolve_references()
    changed.kernel.architecture, changed.kernel.depth = kind, int(number)
    return changed


def _protocol(options: ConfigDict, key: jax.Array) -> rows.Protocol:
    recipe = train.Recipe(
        loss=options.loss,
        num_steps=options.num_steps,
        batch_size=options.batch_size,
        momentum=options.momentum,
        augments=augment.parse(options.augment),
        augment_draw=options.augment_draw,
    )
    return rows.Protocol(
        recipe=recipe,
        labels=options.labels,
        lr_factors=tuple(options.lr_factor),
        l2s=tuple(options.l2),
        seeds=options.seeds,
        key=key,
        ntk_inputs=options.ntk_inputs,
        eval_batch_size=options.eval_batch_size,
        every_steps=options.every_steps,
    )


def _maker(config: ConfigDict, name: str, dataset: Dataset) -> build.Make:
    """What makes the network `name`; UserError if the images are too small for it."""
    kernel, options = config.kernel, config.transfer
    shape, classes = dataset.image_shape, dataset.num_classes
    spec = spec_of(name, kernel.architecture, kernel.depth)
    if spec is None:
        make: build.Make = functools.partial(zoo.make_network, name, shape, classes)
    else:
        weights = build.Weights(kernel.w_std, kernel.b_std, options.parameterization)
        make = functools.partial(
            build.make_network, spec, shape, classes, width=options.width, weights=weights
        )
    build.num_parameters(make)  # Refuses what does not fit.
    return make
