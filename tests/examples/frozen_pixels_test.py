"""The curve of frozen pixels on the digits, short."""

import json

import numpy as np
import pytest

from examples import frozen_pixels
from kip_flax import export


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(frozen_pixels, "SHARES", (0.0, 0.9))
    monkeypatch.setattr(frozen_pixels, "SEEDS", (0, 1))
    monkeypatch.setitem(frozen_pixels.SMALL, "num_steps", 20)


@pytest.mark.slow
def test_the_small_version_goes_through_and_goes_on(short, tmp_path, capsys):
    arguments = ["--small", f"--runs={tmp_path}"]
    assert frozen_pixels.main(arguments) == 0
    printed = capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())
    whole, corrupted = figures["points"]
    # Learned pixels help; noise in nine of ten does harm to the images that nobody learned.
    assert whole["after"] > whole["before"] + 5
    assert corrupted["after"] > corrupted["before"] + 5
    assert corrupted["before"] < whole["before"] - 5
    assert f"| 90% | {corrupted['before']:.2f} | {corrupted['after']:.2f} ±" in printed
    last = export.load_distilled(
        next((tmp_path / "0.9_0" / "distilled").glob("*_ckpt20.npz"))
    ).images
    first = export.load_distilled(
        next((tmp_path / "0.9_0" / "distilled").glob("*_ckpt0.npz"))
    ).images
    assert np.mean(first == last) == pytest.approx(58 / 64)  # 0.9 of 64 pixels, rounded.
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("curve.png", "images.png"))
    # Once more: nothing is run again.
    assert frozen_pixels.main(arguments) == 0
    assert "step 20/20" in printed
    assert "step 20/20" not in capsys.readouterr().out


def test_what_is_stopped_has_no_figures(short, tmp_path, capsys, monkeypatch):
    calls = []

    def stopped(**arguments):
        calls.append(arguments["workdir"])
        raise KeyboardInterrupt

    monkeypatch.setattr(frozen_pixels, "distill", stopped)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert frozen_pixels.main(["--small", f"--runs=~/{tmp_path.name}"]) == 0
    assert calls == [str(tmp_path / "0_0")]
    assert "stopped: the same command goes on" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argument", "message"),
    [("--data=nowhere", "nowhere"), ("--nothing", "unrecognized arguments: --nothing")],
)
def test_mistakes_are_reported_in_one_line(short, tmp_path, capsys, argument, message):
    assert frozen_pixels.main([argument, f"--runs={tmp_path}/runs"]) == 2
    output = capsys.readouterr().err
    assert output.startswith("error: ")
    assert message in output
    assert output.count("\n") == 1
