"""Files of torch.save, written and read without it: against files that torch wrote, and torch."""

import io
import pickle
import pickletools
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from kip_flax.export import torch_files
from kip_flax.runtime.errors import UserError

DATA = Path(__file__).parents[1] / "fixtures"
RNG = np.random.default_rng(0)


def digits():
    """What tests/fixtures/make_torch_files.py saved: (10, 1, 8, 8)."""
    source = load_digits()
    rows = [int(np.argmax(source.target == label)) for label in range(10)]
    pixels = np.rint(source.images[rows] * (255 / 16)) / 255
    return ((pixels - 0.3053) / 0.3760).astype(np.float32)[:, None]


@pytest.mark.parametrize("name", ["res_digits_ConvNet_1ipc.pt", "older_form.pt"])
def test_what_torch_wrote_is_read(name):
    content = torch_files.read(DATA / name)
    (images, labels), (images_back, labels_back) = content["data"]
    assert (images.dtype, labels.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(images, digits())
    np.testing.assert_array_equal(images_back, digits()[::-1])
    assert labels.tolist() == labels_back.tolist()[::-1] == list(range(10))
    kept = content["accs_all_exps"]["ConvNet"]
    assert [type(value) for value in kept] == [torch_files.Skipped] * 2


@pytest.mark.parametrize("name", ["views.pt", "views_older_form.pt"])
def test_views_and_types_are_read(name):
    content = torch_files.read(DATA / name)
    base = np.arange(24.0).reshape(4, 6)
    expected = {
        "transposed": base.T,
        "slice": base[1:3, ::2],
        "expanded": np.ones(5, np.float16),
        "parameter": np.full(2, 3, np.float32),
        "scalar": np.array(7, np.int16),
        "flags": np.array([True, False]),
        "nothing": np.zeros((0, 3), np.float32),
    }
    assert content.pop("text") == ["a", 1, 2.5, None]
    assert content.keys() == expected.keys()
    for key, array in expected.items():
        assert (content[key].dtype, content[key].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(content[key], array)


def everything():
    arrays = {name: RNG.integers(0, 2, (2, 3)).astype(name) for name in torch_files.STORAGES}
    return arrays | {
        "images": RNG.normal(size=(3, 2, 4, 5)).astype(np.float32),
        "turned": np.arange(6.0).reshape(2, 3).T,
        "one": np.array(2.5),
        "nothing": np.zeros((0, 3), np.float32),
        "others": [1, -300, 2**40, 2.5, "naïve", True, False, (), [], {}, (np.arange(3),)],
    }


def assert_equal(got, expected):
    assert type(got) is type(expected)
    if isinstance(expected, np.ndarray):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
    elif isinstance(expected, dict):
        assert got.keys() == expected.keys()
        for key, value in expected.items():
            assert_equal(got[key], value)
    elif isinstance(expected, list | tuple):
        for one, other in zip(got, expected, strict=True):
            assert_equal(one, other)
    else:
        assert got == expected


def test_what_is_written_is_read_back(tmp_path):
    content = everything()
    torch_files.write(tmp_path / "file.pt", content)
    assert_equal(torch_files.read(tmp_path / "file.pt"), content)
    assert torch_files.file_bytes(content) == torch_files.file_bytes(content)
    assert [path.name for path in tmp_path.iterdir()] == ["file.pt"]


def names_in(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (entry,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        operations = list(pickletools.genops(archive.read(entry)))
    return {arg for op, arg, _ in operations if op.name == "GLOBAL"}


def test_the_pickle_names_what_torchs_own_does():
    images = RNG.normal(size=(2, 3)).astype(np.float32)
    written = names_in(torch_files.file_bytes([images]))
    assert written == names_in((DATA / "images_best.pt").read_bytes())


def test_torch_loads_it(tmp_path):
    torch = pytest.importorskip("torch")
    content = everything()
    torch_files.write(tmp_path / "file.pt", content)
    loaded = torch.load(tmp_path / "file.pt", weights_only=True)
    for key, array in content.items():
        if isinstance(array, np.ndarray):
            assert loaded[key].numpy().dtype == array.dtype
            np.testing.assert_array_equal(loaded[key].numpy(), array)
    assert loaded["others"][:-1] == content["others"][:-1]
    buffer = io.BytesIO()
    torch.save({key: torch.tensor(array) for key, array in digits_dict().items()}, buffer)
    (tmp_path / "theirs.pt").write_bytes(buffer.getvalue())
    assert_equal(torch_files.read(tmp_path / "theirs.pt"), digits_dict())


def digits_dict():
    return {"images": digits(), "labels": np.arange(10)}


def test_only_arrays_texts_and_numbers_are_written():
    for content in (object(), None, np.zeros(2, complex), {"a": [b"bytes"]}):
        with pytest.raises(TypeError):
            torch_files.file_bytes(content)


def refusal(path):
    with pytest.raises(UserError) as caught:
        torch_files.read(path)
    line = str(caught.value)
    assert "\n" not in line
    assert path.name in line
    return line


class Harmful:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_code_in_a_file_is_not_run(tmp_path):
    target = tmp_path / "touched"
    path = tmp_path / "harmful.pt"
    path.write_bytes(pickle.dumps(Harmful(target)))
    assert "refused" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Harmful(target)))
    assert re.search(r"it asks for \S+, which is refused", refusal(path))
    assert not target.exists()
    assert "torch.nn.modules.linear.Linear" in refusal(DATA / "a_module.pt")


def test_tensors_outside_their_storage_are_refused(tmp_path):
    path = tmp_path / "file.pt"
    data = torch_files.file_bytes(np.zeros((3, 5), np.float32))
    for old, new in ((b"\x8a\x01\x03", b"\x8a\x01\x04"), (b"\x8a\x01\x05", b"\x8a\x01\xf0")):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        assert old in entries["archive/data.pkl"]
        entries["archive/data.pkl"] = entries["archive/data.pkl"].replace(old, new)
        with zipfile.ZipFile(path, "w") as archive:
            for name, entry in entries.items():
                archive.writestr(name, entry)
        assert "not a file of torch.save" in refusal(path)


@pytest.mark.parametrize("name", ["res_digits_ConvNet_1ipc.pt", "older_form.pt"])
def test_damage_is_refused_or_harmless(tmp_path, name):
    whole = (DATA / name).read_bytes()
    path = tmp_path / name
    for length in range(0, len(whole) - 1, 61):
        path.write_bytes(whole[:length])
        assert "not a file of torch.save" in refusal(path)
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:  # Any other error fails the test.
            torch_files.read(path)
        except UserError as error:
            assert name in str(error)  # noqa: PT017


def test_missing_and_foreign_files_are_refused(tmp_path):
    assert "does not exist" in refusal(tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("images")
    np.savez(tmp_path / "arrays.npz", images=np.zeros(3))
    for name in ("text.pt", "arrays.npz"):
        assert "not a file of torch.save" in refusal(tmp_path / name)
