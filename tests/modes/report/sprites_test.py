"""The pictures of the page: those of the files, within a budget."""

import base64
import io
import re

import numpy as np
import page_checks
import pytest
from made_pages import data_of, page, pictures_of
from PIL import Image

from kip_flax.modes.report import sprites as report_sprites


def test_pictures_and_labels_are_those_of_the_files(tmp_path):
    html, sets = page(tmp_path)
    data = data_of(html)
    assert [frame["step"] for frame in data["frames"]] == list(sets)
    low, high = data["range"]
    for frame in data["frames"]:
        pictures, labels = sets[frame["step"]]
        values = np.frombuffer(base64.b64decode(frame["values"]), "<i2") * frame["scale"]
        np.testing.assert_allclose(values.reshape(labels.shape), labels, atol=4e-5 * high)
        assert low - 1e-6 <= labels.min()
        assert labels.max() <= high + 1e-6
        shown = pictures_of(html, f'#r0[data-step="{frame["step"]}"] .now')
        tiles = shown.reshape(1, 8, 10, 8).swapaxes(1, 2).reshape(10, 8, 8)
        np.testing.assert_array_equal(tiles, np.rint(255 * pictures[..., 0]))
    np.testing.assert_array_equal(
        pictures_of(html, "#r0 .before"), pictures_of(html, '#r0[data-step="0"] .now')
    )
    tree, _ = page_checks.parse(html)
    last = sets[10][1]
    bars = [e for e in tree.iter("svg") if e.get("class") == "bars"]
    assert len(bars) == 10
    for i, bar in enumerate(bars):
        own = bar.find("path[@class='own']").get("d")
        x, top, end = map(float, re.fullmatch(r"M(\d+) (\S+)h8V(\S+)h-8z", own).groups())
        assert x == 10 * i + 1
        assert (top - end) / 60 * (high - low) == pytest.approx(last[i, i], abs=0.01)
        assert f"{abs(last[i, i]):.2f}" in bar.get("aria-label")


@pytest.mark.slow
def test_a_hundred_colour_images_at_twenty_steps_fit_in_five_megabytes(tmp_path):
    """Noise, which no compression helps with."""
    steps = tuple(range(20))
    html, _ = page(tmp_path, steps=steps, size=100, shape=(32, 32, 3))
    assert len(html.encode()) < 5e6
    assert [frame["step"] for frame in data_of(html)["frames"]] == list(steps)
    assert "256 colours" in html
    shown = Image.fromarray(pictures_of(html, '#r0[data-step="19"] .now'))
    assert shown.size == (20 * 32, 5 * 32)


def test_images_keep_their_numbers_where_not_all_are_shown(tmp_path):
    html, _ = page(tmp_path, steps=(0, 1), size=500)
    numbers = data_of(html)["numbers"]
    assert numbers == [int(n) for n in re.findall(r"Label of image (\d+):", html)]
    assert len(numbers) == report_sprites.MAX_IMAGES
    assert (numbers[0], numbers[-1]) == (1, 500)


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3), (64, 64, 3), (512, 512, 3)])
@pytest.mark.parametrize("size", [1, 10, 100, 1000])
@pytest.mark.parametrize("classes", [2, 100])
def test_the_budget_holds_for_every_size(shape, size, classes):
    steps = [0, *range(1, 60)]
    choice = report_sprites.choose(steps, size, shape, classes)
    assert choice.steps[0] == 0
    assert choice.steps[-1] == 59
    assert choice.rows[0] == 0
    assert choice.rows[-1] == (0 if len(choice.rows) == 1 else size - 1)
    colours = 1 if choice.palette or shape[2] == 1 else 3
    stored = len(choice.rows) * len(choice.steps) * (shape[0] * shape[1] * colours + 2 * classes)
    assert stored <= report_sprites.BUDGET


def test_256_colours_are_near_the_picture():
    rng = np.random.default_rng(0)
    smooth = rng.random((4, 3, 3, 3)).repeat(8, axis=1).repeat(8, axis=2)
    exact, poor = (
        np.asarray(Image.open(io.BytesIO(report_sprites.encode(smooth, p))).convert("RGB"), float)
        for p in (False, True)
    )
    assert np.abs(exact - poor).mean() < 4
