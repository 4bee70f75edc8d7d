"""A network in a folder: what it says is what NumPy makes of its weights; damage is reported."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from kip_flax import networks, preprocess
from kip_flax.networks import build, named, saved
from kip_flax.runtime import files
from kip_flax.runtime.errors import UserError

SHAPE, NAMES = (4, 4, 1), ("one", "two", "three")
LIKE = named.NetworkOptions("fc", 1, 16, build.Weights(1.2, 0.1))


def pictures(count, seed=0, shape=SHAPE):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def trained(name="fc:1", centred=False, like=LIKE, shape=SHAPE):
    net = build.functions(named.maker(name, shape, len(NAMES), like))
    weights = tuple(net.init(jax.random.key(seed)) for seed in range(2 if centred else 1))
    fitted = preprocess.fit("standard", pictures(50, 9, shape))
    facts = {"held_out": 0.75, "test": 0.5}
    return saved.TrainedNetwork(name, like, shape, NAMES, fitted, 0.5, weights, facts)


def by_numpy(network, images):
    """Scores of a network with one hidden layer, written out."""
    x = (images / 255.0 - network.fitted.mean) / network.fitted.std * network.scale
    x = x.reshape(len(x), -1)
    total = 0.0
    for sign, (params, _) in zip((1, -1), network.weights, strict=False):
        layers = [params["layers"][i] for i in sorted(params["layers"])]
        (w1, b1), (w2, b2) = (
            (np.asarray(layer["kernel"][...], np.float64), np.asarray(layer["bias"][...]))
            for layer in layers
        )
        total = total + sign * (np.maximum(x @ w1 + b1, 0) @ w2 + b2)
    return total


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("count", [1, 9, 450])
def test_what_a_loaded_network_says_is_numpys(centred, count, tmp_path):
    network = trained(centred=centred)
    saved.save(tmp_path / "network", network)
    loaded = networks.load(tmp_path / "network")
    predictions = loaded.predict(pictures(count))
    expected = by_numpy(network, pictures(count))
    np.testing.assert_allclose(predictions.scores, expected, atol=1e-5)
    assert predictions.classes.tolist() == expected.argmax(1).tolist()
    assert predictions.names == [NAMES[number] for number in predictions.classes]
    assert len(set(predictions.names)) > 1 or count == 1
    assert (loaded.facts, loaded.class_names) == (network.facts, NAMES)


@pytest.mark.parametrize("name", ["kernel", "convnet_plain:1", "convnet2_in"])
def test_networks_of_every_kind_come_back_to_the_same_bits(name, tmp_path):
    like = dataclasses.replace(LIKE, architecture="convnet", blocks={"normalization": "batch"})
    network = trained(name, like=like, shape=(8, 8, 3))
    saved.save(tmp_path, network)
    images = pictures(5, shape=(8, 8, 3))
    loaded = saved.load(tmp_path)
    np.testing.assert_array_equal(loaded.predict(images).scores, network.predict(images).scores)
    assert loaded.like == like


def test_grey_pictures_need_no_last_axis_and_none_give_nothing():
    network = trained()
    flat = network.predict(pictures(3)[..., 0])
    np.testing.assert_array_equal(flat.scores, network.predict(pictures(3)).scores)
    none = network.predict(pictures(0))
    assert (none.names, none.scores.shape) == ([], (0, 3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (pictures(2).astype(np.float32) / 255, r"pictures are float32 \(2, 4, 4, 1\)"),
        (pictures(2, shape=(5, 4, 1)), r"takes uint8 \(n, 4, 4, 1\) from 0 to 255"),
        (pictures(1)[0, :, :, 0], r"pictures are uint8 \(4, 4\)"),
    ],
)
def test_other_arrays_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        trained().predict(given)


def rewritten(path, **changes):
    arrays = files.read_arrays(path)
    description = json.loads(arrays["description"].tobytes()) | changes
    arrays["description"] = np.frombuffer(json.dumps(description).encode(), np.uint8)
    files.write_arrays(path, arrays)


def test_damage_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no network in .*--mode=transfer leaves one"):
        networks.load(tmp_path)
    path = saved.save(tmp_path, trained())
    whole = path.read_bytes()
    rewritten(path, format=2)
    with pytest.raises(UserError, match="has the format 2 and this program reads 1"):
        networks.load(tmp_path)
    path.write_bytes(whole)
    rewritten(path, name="fc:2")
    with pytest.raises(UserError, match="weights of another network than fc:2"):
        networks.load(tmp_path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a whole npz file"):
        networks.load(tmp_path)
    path.write_bytes(whole)
    rewritten(path, like={"architecture": "fc"})
    with pytest.raises(UserError, match="holds no network"):
        networks.load(tmp_path)
    files.write_arrays(path, {"images": np.zeros(3)})
    with pytest.raises(UserError, match="holds no network"):
        networks.load(tmp_path)
