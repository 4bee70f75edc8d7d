"""A user's own pictures of any mode and size, whole and broken."""

import os
from pathlib import Path

import numpy as np
from dataset_checks import fails
from PIL import Image

from kip_flax.data import load_dataset, readers


def write_pictures(root: Path, count: int = 5) -> None:
    for name, colour in (("cats", (255, 0, 0)), ("dogs", (0, 0, 255))):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (10, 12), colour).save(root / name / f"{i}.png")


def test_folder_is_split_by_class(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "cats" / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden").mkdir()
    data = load_dataset("folder", str(tmp_path), image_size=6, test_fraction=0.4)
    assert data.class_names == ("cats", "dogs")
    assert data.image_shape == (6, 6, 3)
    np.testing.assert_array_equal(np.bincount(data.train_labels), [3, 3])
    np.testing.assert_array_equal(np.bincount(data.test_labels), [2, 2])
    np.testing.assert_array_equal(data.test_images[data.test_labels == 0][0, 3, 3], [255, 0, 0])
    np.testing.assert_array_equal(data.train_images[data.train_labels == 1][0, 0, 0], [0, 0, 255])


def test_folder_with_train_and_test(tmp_path):
    write_pictures(tmp_path / "train", 3)
    write_pictures(tmp_path / "test", 1)
    data = load_dataset("folder", str(tmp_path), image_size=4)
    assert (len(data.train_images), len(data.test_images)) == (6, 2)
    (tmp_path / "test" / "birds").mkdir()
    fails("differ", "train", "test", name="folder", data_dir=tmp_path)


def test_pictures_of_any_mode_are_cropped_to_the_centre(tmp_path):
    # 12 wide, 6 high: the middle 6 columns are white, what is cropped away is black.
    white = np.zeros((6, 12), np.uint8)
    white[:, 3:9] = 255
    grey = Image.fromarray(white)
    write_pictures(tmp_path, 2)
    (tmp_path / "modes").mkdir()
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK"):
        suffix = "tif" if mode == "CMYK" else "png"
        grey.convert("RGB").convert(mode).save(tmp_path / "modes" / f"{mode}.{suffix}")
    Image.fromarray(white.astype(np.uint16) * 257).save(tmp_path / "modes" / "sixteen.png")
    data = load_dataset("folder", str(tmp_path), image_size=6)
    images = np.concatenate([data.train_images, data.test_images])
    modes = images[np.concatenate([data.train_labels, data.test_labels]) == 2]
    assert modes.shape == (8, 6, 6, 3)
    np.testing.assert_array_equal(modes, 255)


def test_sixteen_bit_grey_is_scaled(tmp_path):
    write_pictures(tmp_path, 2)
    for i in range(2):
        picture = Image.fromarray(np.full((4, 4), 128 * 257, np.uint16))
        picture.save(tmp_path / "cats" / f"{i}.png")
    data = load_dataset("folder", str(tmp_path), image_size=4)
    np.testing.assert_array_equal(data.train_images[data.train_labels == 0], 128)


def test_what_is_transparent_becomes_white(tmp_path):
    """A black drawing on a ground that is black too, and not seen."""
    write_pictures(tmp_path, 2)
    drawn = np.zeros((6, 6, 4), np.uint8)
    drawn[:3, :, 3] = 255
    for i in range(2):
        Image.fromarray(drawn).save(tmp_path / "cats" / f"{i}.png")
    data = load_dataset("folder", str(tmp_path), image_size=6)
    cat = data.train_images[data.train_labels == 0][0]
    np.testing.assert_array_equal(cat[:2], 0)
    np.testing.assert_array_equal(cat[4:], 255)
    white = np.full((6, 6, 4), 255, np.uint8)
    white[3:, :, 3] = 0
    Image.fromarray(white).save(tmp_path / "cats" / "0.png")
    fails("0.png is white on a transparent ground", name="folder", data_dir=tmp_path)


def test_a_palette_whose_transparency_is_not_used_is_read_without_a_word(tmp_path, recwarn):
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 200, 100, 50])
    path = tmp_path / "palette.png"
    picture.save(path, transparency=bytes([255, 255]))
    assert readers.read_picture(path, 4)[0, 0].tolist() == [200, 100, 50]
    assert not recwarn.list


def test_pictures_whose_white_is_not_known_are_refused(tmp_path):
    write_pictures(tmp_path, 2)
    for kind in (np.int32, np.float32):
        Image.fromarray(np.ones((4, 4), kind)).save(tmp_path / "cats" / "0.tiff")
        fails("0.tiff has 32 bits a pixel", name="folder", data_dir=tmp_path)


def test_hidden_files_and_what_a_mac_adds_are_left_out(tmp_path):
    write_pictures(tmp_path, 2)
    (tmp_path / "cats" / "._0.png").write_bytes(b"resource fork")
    (tmp_path / "__MACOSX" / "cats").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "cats" / "._0.png").write_bytes(b"resource fork")
    data = load_dataset("folder", str(tmp_path), image_size=4)
    assert data.class_names == ("cats", "dogs")
    assert len(data.train_images) == 2
    assert [path.name for path in readers.pictures_below(tmp_path)] == ["0.png", "1.png"] * 2


def test_folders_below_belong_to_the_class_unless_they_are_all_there_is(tmp_path):
    write_pictures(tmp_path, 2)
    (tmp_path / "cats" / "more").mkdir()
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "cats" / "more" / "2.png")
    data = load_dataset("folder", str(tmp_path), image_size=4)
    counts = np.bincount(np.concatenate([data.train_labels, data.test_labels]))
    assert dict(zip(data.class_names, counts, strict=True)) == {"cats": 3, "dogs": 2}
    write_pictures(tmp_path / "all" / "train", 2)
    write_pictures(tmp_path / "all" / "val", 1)
    fails("train holds folders and no picture", name="folder", data_dir=tmp_path / "all")


def test_bad_folders(tmp_path):
    (tmp_path / "only").mkdir()
    fails("class folders", str(tmp_path), name="folder", data_dir=tmp_path)
    write_pictures(tmp_path)
    fails("no picture", "only", name="folder", data_dir=tmp_path)
    (tmp_path / "only" / "bad.png").write_bytes((tmp_path / "cats" / "0.png").read_bytes()[:50])
    fails("bad.png", "picture", name="folder", data_dir=tmp_path)
    Image.new("L", (4, 4)).save(tmp_path / "only" / "bad.png")
    fails("one image", name="folder", data_dir=tmp_path)


def test_a_name_that_is_no_text_is_told_of(tmp_path):
    for name in (b"na\xefve", b"tea"):
        os.mkdir(os.fsencode(tmp_path) + b"/" + name)
    fails("has the folder 'na\\udcefve'", "no UTF-8: rename it", name="folder", data_dir=tmp_path)
