"""A small set with its preprocessing and provenance, and what was exported of it."""

import numpy as np
import pytest
import yaml

from kip_flax import export, preprocess
from kip_flax.modes.export_set.mode import export_file

NAMES = ("ant", "T-shirt/top", "naïve cat")
KERNEL = {"architecture": "convnet", "depth": 3, "get": "ntk"}
PROVENANCE = {
    "dataset": "cifar10",
    "step": 12,
    "test_accuracy": 0.512345,
    "test_mse": 0.0123,
    "config": {"algorithm": "kip", "support.learn_labels": True, "seed": 7, "reg": 1e-6},
    "versions": {"kip_flax": "0.1.0"},
}


def a_set(folder, name="standard", channels=3, provenance=PROVENANCE):
    """Six images of 5x4: their real pixels in uint8, and the file."""
    rng = np.random.default_rng(channels)
    train = rng.integers(0, 256, (40, 5, 4, channels), dtype=np.uint8)
    fitted = preprocess.fit(name, train)
    labels = rng.normal(size=(6, 3)).astype(np.float32)
    labels[np.arange(6), [0, 0, 1, 1, 2, 2]] += 10
    export.write_distilled(
        folder / "set.npz",
        preprocess.apply(fitted, train[:6]),
        labels,
        export.Description(fitted, NAMES, KERNEL, provenance),
    )
    return train[:6], export.load_distilled(folder / "set.npz")


@pytest.fixture
def exported(tmp_path, capsys):
    pixels, distilled = a_set(tmp_path)
    written = export_file(str(tmp_path / "set.npz"), str(tmp_path / "out"))
    output = capsys.readouterr().out
    return pixels, distilled, tmp_path / "out", written, output


def card_of(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body
