"""A trained network in a folder: weights, description, preprocessing and class names.

network = kip_flax.networks.load("runs/mine_networks/network")
names, scores = network.predict(pictures)[:2]
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from kip_flax import preprocess
from kip_flax.data import predictions
from kip_flax.data.predictions import Predictions
from kip_flax.networks import build, named
from kip_flax.preprocess import Preprocess
from kip_flax.runtime import files
from kip_flax.runtime.batching import pad_rows
from kip_flax.runtime.errors import UserError

FORMAT = 1  # Of the file; it grows with every change that older programs cannot read.
FILE = "network.npz"
_DESCRIPTION = "description"
_WEIGHTS = "weights/"
_PREPROCESS = "preprocess/"
_BATCH = 100  # Images per device at a time.

Weights = tuple[tuple[Any, Any], ...]  # (parameters, running averages) of one network, or two.


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network with all that is needed to use it.

    Attributes:
        name: as in `transfer.networks`.
        like: how networks are built from descriptions.
        image_shape: (H, W, C) of the pictures.
        class_names: one for each class.
        fitted: the preprocessing of the pictures.
        scale: the factor of the preprocessed pictures.
        weights: the weights that predict; if f - f0 was trained (see `Recipe.centred`), the initial
            weights follow.
        facts: how it was made, JSON values; 'held_out' is its accuracy on held-out images.
    """

    name: str
    like: named.NetworkOptions
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    fitted: Preprocess
    scale: float
    weights: Weights
    facts: dict[str, Any]

    def predict(self, pictures: np.ndarray) -> Predictions:
        """The predictions for uint8 pictures (n, H, W, C), or (n, H, W) if they are grey.

        Raises:
            UserError: they are not uint8, or of another shape than the network was trained on.
        """
        pictures = predictions.checked(pictures, self.image_shape, "the network")
        count, devices = len(pictures), len(jax.devices())
        size = _BATCH * devices
        scores = np.zeros((count, len(self.class_names)), np.float32)
        for start in range(0, count, size):
            part = pictures[start : start + size]
            images = np.float32(self.scale) * preprocess.apply(self.fitted, part)
            # A few pictures make a smaller batch; of many, the last batch is padded.
            images = pad_rows(images, min(size, 8 * devices) if count < size else size)
            scores[start : start + len(part)] = np.asarray(self._outputs(images))[: len(part)]
        return predictions.of_scores(scores, self.class_names)

    @functools.cached_property
    def _outputs(self) -> Any:
        """A function from images to outputs, which spreads the images over the devices."""
        mesh = Mesh(np.array(jax.devices()), ("images",))
        weights = jax.device_put(self.weights, NamedSharding(mesh, P()))
        apply = build.functions(self._make()).apply

        @jax.jit
        def outputs(weights: Weights, images: jax.Array) -> jax.Array:
            found = apply(*weights[0], images)
            return found - apply(*weights[1], images) if len(weights) > 1 else found

        spread = NamedSharding(mesh, P("images"))
        return lambda images: outputs(weights, jax.device_put(images, spread))

    def _make(self) -> build.Make:
        return named.maker(self.name, self.image_shape, len(self.class_names), self.like)


def save(folder: str | os.PathLike[str], network: TrainedNetwork) -> Path:
    """Writes a network into a folder, whole or not at all, and returns the path of its file.

    Raises:
        UserError: the file cannot be written.
    """
    described = {
        "format": FORMAT,
        "name": network.name,
        "like": dataclasses.asdict(network.like),
        "image_shape": network.image_shape,
        "class_names": network.class_names,
        "scale": network.scale,
        "networks": len(network.weights),
        "facts": network.facts,
    }
    text = json.dumps(described).encode()
    arrays = {_DESCRIPTION: np.frombuffer(text, np.uint8)}
    for name, array in preprocess.to_arrays(network.fitted).items():
        arrays[f"{_PREPROCESS}{name}"] = array
    for number, leaf in enumerate(jax.tree.leaves(network.weights)):
        arrays[f"{_WEIGHTS}{number}"] = np.asarray(leaf)
    path = Path(folder) / FILE
    files.write_arrays(path, arrays)
    return path


def load(folder: str | os.PathLike[str]) -> TrainedNetwork:
    """The network that `--mode=transfer` left in a folder.

    Raises:
        UserError: there is no network, it is damaged, or another version of the program wrote it.
    """
    path = Path(folder).expanduser() / FILE
    if not path.is_file():
        raise UserError(
            f"there is no network in {folder} ({FILE} is missing): --mode=transfer leaves one in "
            f"the folder 'network' of its workdir."
        )
    arrays = files.read_arrays(path)
    try:
        described = json.loads(arrays[_DESCRIPTION].tobytes())
        network = _without_weights(described, arrays) if described["format"] == FORMAT else None
        count = described["networks"]
    except UserError:  # It has a line of its own.
        raise
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} holds no network ({error}): train it again.") from None
    if network is None:
        raise UserError(
            f"{path} has the format {described['format']} and this program reads {FORMAT}: train "
            f"the network again, or use the version that wrote it."
        )
    weights = _weights(path, network, _under(arrays, _WEIGHTS), count)
    return dataclasses.replace(network, weights=weights)


def _without_weights(described: dict[str, Any], arrays: dict[str, np.ndarray]) -> TrainedNetwork:
    like = described["like"]
    return TrainedNetwork(
        name=described["name"],
        like=named.NetworkOptions(**like | {"weights": build.Weights(**like["weights"])}),
        image_shape=tuple(described["image_shape"]),
        class_names=tuple(described["class_names"]),
        fitted=preprocess.from_arrays(_under(arrays, _PREPROCESS)),
        scale=described["scale"],
        weights=(),
        facts=described["facts"],
    )


def _under(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def _weights(
    path: Path, network: TrainedNetwork, leaves: dict[str, np.ndarray], networks: int
) -> Weights:
    """The trees of weights made of numbered leaves; UserError if these do not fit `network`."""
    init = build.functions(network._make()).init
    like = (jax.eval_shape(init, jax.random.key(0)),) * networks
    shapes = [leaf.shape for leaf in jax.tree.leaves(like)]
    found = [leaves.get(str(number)) for number in range(len(shapes))]
    if len(leaves) != len(shapes) or [None if x is None else x.shape for x in found] != shapes:
        raise UserError(
            f"{path} holds weights of another network than {network.name} is in this version: "
            f"train it again."
        )
    return jax.tree.unflatten(jax.tree.structure(like), found)
