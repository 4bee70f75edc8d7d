"""Pictures: pixels, sheets and files are known to the value; drawings show what they are given."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFont

from kip_flax import data
from kip_flax.export import pictures

C = 3
NAMES = ("ant", "bee", "cat")


def test_pixels_beyond_the_range_are_clipped():
    values = np.array([-np.inf, -0.1, 0, 0.2, 1, 1.7, np.inf, np.nan])
    assert pictures.to_uint8(values).tolist() == [0, 0, 0, 51, 255, 255, 255, 0]


def test_other_numbers_of_channels_are_their_mean():
    two = np.array([[[[0.2, 0.6]]]])
    np.testing.assert_allclose(pictures.grey_or_rgb(two), [[[[0.4]]]])
    np.testing.assert_allclose(pictures.rgb(two), [[[[0.4] * 3]]])
    for channels in (1, 3):
        known = np.random.default_rng(0).random((2, 4, 5, channels))
        assert pictures.grey_or_rgb(known) is known
        np.testing.assert_array_equal(pictures.rgb(known), np.broadcast_to(known, (2, 4, 5, 3)))


@pytest.mark.parametrize(("gap", "fill", "dtype"), [(0, 0, np.uint8), (2, 1.0, np.float32)])
def test_a_sheet_has_its_pictures_in_rows(gap, fill, dtype):
    shown = np.arange(5 * 2 * 3, dtype=dtype).reshape(5, 2, 3, 1) + 2
    sheet = pictures.sheet(shown, 3, gap, fill)
    assert sheet.dtype == dtype
    assert sheet.shape == (2 * 2 + gap, 3 * 3 + 2 * gap, 1)
    rest = np.ones(sheet.shape, bool)
    for number, picture in enumerate(shown):
        top, left = number // 3 * (2 + gap), number % 3 * (3 + gap)
        place = (slice(top, top + 2), slice(left, left + 3))
        np.testing.assert_array_equal(sheet[place], picture)
        rest[place] = False
    assert (sheet[rest] == fill).all()
    assert pictures.sheet(shown[:2], 3).shape == (2, 6, 1)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_png_holds_the_pixels(tmp_path, channels, mode):
    picture = np.random.default_rng(0).integers(0, 256, (6, 5, channels), np.uint8)
    smaller = pictures.png_bytes(picture, optimize=True)
    pictures.write_png(tmp_path / "p.png", picture)
    for source in (tmp_path / "p.png", io.BytesIO(smaller)):
        with Image.open(source) as image:
            assert image.mode == mode
            np.testing.assert_array_equal(np.asarray(image).reshape(picture.shape), picture)
            assert pictures.png_bytes(image) == pictures.png_bytes(picture)


@pytest.mark.parametrize("channels", [1, 3])
def test_folders_load_as_a_data_set_of_ours(tmp_path, channels):
    """The folders' order gives the classes their numbers back."""
    classes = np.array([10, 2, 2, 0, 10, 0, *range(1, 10)])
    names = [f"name {chr(ord('z') - c)}" for c in range(11)]
    pixels = np.random.default_rng(0).integers(0, 256, (len(classes), 6, 6, channels), np.uint8)
    pictures.write_folders(tmp_path, pixels, classes, names)
    folders = sorted(path.name for path in tmp_path.iterdir())
    assert (folders[0], folders[10]) == ("00_name-z", "10_name-p")
    for picture, name in zip(pixels, pictures.file_names(classes, names), strict=True):
        with Image.open(tmp_path / name) as image:
            assert image.mode == {1: "L", 3: "RGB"}[channels]
            np.testing.assert_array_equal(np.asarray(image).reshape(picture.shape), picture)
    for folder in folders:
        pictures.write_folders(tmp_path, pixels[:1], np.array([int(folder[:2])]), names)
    read = data.load_dataset("folder", str(tmp_path), image_size=6, test_fraction=0.5)
    assert read.class_names == tuple(folders)


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32), (2, 120)])
def test_image_grid_shows_initial_above_learned(channels, size):
    count, columns = 5, 3
    initial = np.full((count, size, size, channels), 0.2)
    learned = np.full((count, size, size, channels), 1.7)
    initial[4] = -1
    labels = np.eye(C)[np.arange(count) % C]
    names = ("ant", "bee", "a name too long for the place under a picture")
    grid = pictures.draw_image_grid(initial, learned, labels, labels, names, columns)
    pixels = np.asarray(grid.convert("L")).astype(int)
    tile = size * -(-96 // size)
    assert tile >= 96

    def areas(value):
        return np.sum(pixels == value) / tile**2

    # 4 grey tiles and a black one (clipped from below); learned ones are clipped to white.
    assert 4 <= areas(51) < 4.2
    assert 1 <= areas(0) < 1.2
    height, width = pixels.shape
    assert 3 * tile < width < 3 * (tile + 20) + 100
    assert 4 * tile < height < 4 * (tile + 60)
    top = pixels[:, -tile // 2]  # through the third column: one initial, one learned, then nothing
    assert np.sum(top == 51) == tile


def test_image_grid_of_100_is_10_wide():
    images = np.zeros((100, 4, 4, 1))
    labels = np.eye(C)[np.arange(100) % C]
    grid = pictures.draw_image_grid(images, images, labels, labels, NAMES)
    assert 10 * 96 < grid.width < 11 * 110
    assert 20 * 96 < grid.height < 20 * 140


def test_label_bars_rise_above_the_line_and_fall_below():
    labels = np.array([[0.9, -0.3, 0.0], [-0.1, 0.2, 0.3]])
    bars = np.asarray(pictures.draw_label_bars(labels, NAMES))
    blue = (bars == (0x1A, 0x5F, 0xB4)).all(axis=-1)
    grey = (bars == (0x9A, 0xA0, 0xA6)).all(axis=-1)
    first, second = blue[:, :120], blue[:, 120:]
    unit = 72 / 1.2  # Pixels between the lowest label and the highest.
    assert np.ptp(np.flatnonzero(first.any(axis=1))) == pytest.approx(0.9 * unit, abs=1)
    assert np.ptp(np.flatnonzero(second.any(axis=1))) == pytest.approx(0.3 * unit, abs=1)
    line = 10 + 0.9 * unit
    rows = np.flatnonzero(grey[:, 10 + 40 : 10 + 70].any(axis=1))  # The second label of the first.
    assert (rows.min() >= line - 1, np.ptp(rows)) == (True, pytest.approx(0.3 * unit, abs=1))


@pytest.mark.parametrize("name", ["zoé", "жук", "λύκος"])
def test_letters_beyond_ascii_are_drawn(name):
    """Each letter has a form of its own: a font draws letters that it lacks all alike."""
    font = pictures.text_font(["ant", name], 24)
    missing = bytes(font.getmask("\uffff"))
    forms = {bytes(font.getmask(letter)) for letter in set(name)}
    assert len(forms) == len(set(name))
    assert missing not in forms
    labels = np.eye(2)
    drawn = [pictures.draw_label_bars(labels, (other, "bee")) for other in (name, name[::-1])]
    assert drawn[0].tobytes() != drawn[1].tobytes()


def test_ascii_takes_the_font_of_pillow():
    assert pictures.text_font(NAMES, 12).getname() == ImageFont.load_default(12).getname()
