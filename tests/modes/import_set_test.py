"""Sets in the layouts of others: recognised, brought into ours, evaluated as their makers do."""

import shutil
import types
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from whole_runs import small

from kip_flax import data, export, preprocess
from kip_flax.export import layouts, torch_files
from kip_flax.modes.evaluate import mode as evaluate_mode
from kip_flax.modes.export_set.mode import export_file
from kip_flax.modes.import_set import mode as import_mode
from kip_flax.modes.import_set.mode import import_file, preprocess_name
from kip_flax.runtime.errors import UserError

DATA = Path(__file__).parents[1] / "fixtures"


def coloured(count=600, size=8):
    """Digits (n, 8, 8, 3) uint8 in a colour of their own each."""
    source = load_digits()
    tint = np.random.default_rng(0).uniform(0.4, 1, (count, 1, 1, 3))
    images = source.images[:count, :size, :, None] * (255 / 16) * tint
    return np.rint(images).astype(np.uint8), source.target[:count]


@pytest.fixture
def colours(tmp_path):
    """A configuration of an npz data set, and its two parts."""
    images, labels = coloured()
    np.savez(tmp_path / "colours.npz", images=images, labels=labels)
    fields = {"dataset__name": "npz", "dataset__data_dir": str(tmp_path / "colours.npz")}
    config = small(**fields, reg=5e-3, preprocess="zca", mesh__data=1, eval__num_test=0)
    return config, data.load_dataset("npz", str(tmp_path / "colours.npz"))


def a_draw(labels):
    """Two images of each class."""
    return np.concatenate([np.flatnonzero(labels == label)[:2] for label in range(10)])


def rbf(x1, x2):
    """quick.quick_kernel in float64."""
    squares = np.square(x1[:, None] - x2[None]).sum(-1)
    return np.exp(-squares / (2 * x1.shape[1]))


def ridge_measures(support, labels, test, test_labels, reg):
    """RFAD's and KIP's prediction: the ridge relative to the mean of the diagonal."""
    k = rbf(support, support)
    k = k + reg * np.trace(k) / len(k) * np.eye(len(k))
    pred = rbf(test, support) @ np.linalg.solve(k, labels)
    errors = pred - (np.eye(10)[test_labels] - 0.1)
    return np.mean(pred.argmax(1) == test_labels), 0.5 * np.mean(np.square(errors))


def whitened(train_images, others, subtract_mean):
    """RFAD's ZCA (its data.py), and FRePo's with `subtract_mean`, in channels-first float64."""

    def first(images):
        return images.transpose(0, 3, 1, 2).astype(np.float64)

    mean = first(train_images).mean((0, 2, 3), keepdims=True)
    std = first(train_images).std((0, 2, 3), keepdims=True)
    parts = [((first(x) - mean) / std) for x in (train_images, *others)]
    rows = [x.reshape(len(x), -1) for x in parts]
    if subtract_mean:
        rows = [x - rows[0].mean(0) for x in rows]
    cov = rows[0].T @ rows[0] / len(rows[0])
    u, s, _ = np.linalg.svd(cov + 0.1 * np.trace(cov) / len(cov) * np.eye(len(cov)))
    return [x @ (u * s**-0.5) @ u.T for x in rows]


@pytest.mark.parametrize(("layout", "name"), [("rfad", "zca"), ("frepo", "zca_center")])
def test_a_set_evaluates_as_in_its_makers_space(
    colours, tmp_path, quick_kernels, capsys, layout, name
):
    config, dataset = colours
    rows = a_draw(dataset.train_labels)
    _, test, support = whitened(
        dataset.train_images, (dataset.test_images, dataset.train_images[rows]), layout == "frepo"
    )
    labels = np.eye(10)[dataset.train_labels[rows]] - 0.1
    accuracy, mse = ridge_measures(support, labels, test, dataset.test_labels, 5e-3)
    images = support.reshape(-1, 3, 8, 8).astype(np.float32)
    if layout == "rfad":
        np.savez(tmp_path / "best.npz", images=images, labels=labels, k=0.5, jit=5e-3)
    else:
        np.savez(tmp_path / "best.npz", image=images.transpose(0, 2, 3, 1), label=labels)
    path, folder = str(tmp_path / "best.npz"), str(tmp_path / "in")
    (written,) = import_file(config, path, folder, "auto")
    mirrored = "--config.kernel.mirrored=True" in capsys.readouterr().out
    assert mirrored == (layout == "frepo")  # Which doubles sets of colour images.
    config.preprocess = name
    measured = evaluate_mode.evaluate_file(config, written)
    assert measured["accuracy"] == pytest.approx(accuracy, abs=1 / len(test))
    assert measured["mse"] == pytest.approx(mse, rel=1e-4)
    assert accuracy > 0.3
    config.preprocess = "standard"
    with pytest.raises(UserError, match=f"made with preprocess={name}"):
        evaluate_mode.evaluate_file(config, written)


@pytest.mark.parametrize(
    ("name", "per_class", "mirrored"),
    [("cifar10", 50, True), ("cifar100", 1, True), ("cifar100", 10, False)],
)
def test_frepos_sets_of_many_images_of_cifar100_have_no_mirror_images(name, per_class, mirrored):
    classes = {"cifar10": 10, "cifar100": 100}[name]
    images = np.zeros((per_class * classes, 1, 1, 3), np.float32)
    found = types.SimpleNamespace(sets=[(images, None)])
    dataset = types.SimpleNamespace(
        name=name, num_classes=classes, mirrorable=True, image_shape=(32, 32, 3)
    )
    assert import_mode._made_with_mirror_images(found, dataset) == mirrored


def digits_config(**fields):
    return small(mesh__data=1, eval__num_test=0, **fields)


def imported(tmp_path, path, layout="auto", **fields):
    return import_file(digits_config(**fields), str(path), str(tmp_path / "in"), layout)


@pytest.mark.parametrize("name", ["res_digits_ConvNet_1ipc.pt", "older_form.pt"])
def test_dc_gives_a_set_for_each_experiment(tmp_path, capsys, quick_kernels, name):
    written = imported(tmp_path, DATA / name)
    assert [Path(path).name for path in written] == [f"{name[:-3]}_{n}.npz" for n in (0, 1)]
    output = capsys.readouterr().out
    assert "layout dc, 10, 10 images of digits" in output
    assert f"--mode=evaluate --distilled={written[0]} --config.preprocess=standard" in output
    first, second = (export.load_distilled(path) for path in written)
    np.testing.assert_array_equal(first.images, second.images[::-1])
    np.testing.assert_allclose(first.labels, np.eye(10) - 0.1, rtol=1e-6)
    assert first.meta["provenance"]["layout"] == "dc"
    assert first.meta["provenance"]["imported"] == name
    accuracies = [
        evaluate_mode.evaluate_file(digits_config(), path)["accuracy"] for path in written
    ]
    assert accuracies[0] == pytest.approx(accuracies[1])
    assert accuracies[0] > 0.4


@pytest.mark.parametrize("named", ["images_best.pt", "labels_best.pt"])
def test_mtt_is_a_pair_of_files(tmp_path, capsys, named):
    (written,) = imported(tmp_path, DATA / named)
    assert "layout mtt" in capsys.readouterr().out
    assert Path(written).name == "images_best.npz"
    read = export.load_distilled(written)
    np.testing.assert_allclose(read.labels, np.eye(10) - 0.1, rtol=1e-6)
    shutil.copy(DATA / "images_best.pt", tmp_path)
    with pytest.raises(
        UserError, match=r"images_best\.pt holds one tensor: images\*\.pt and labels"
    ):
        imported(tmp_path, tmp_path / "images_best.pt")


def test_a_damaged_file_is_refused(tmp_path):
    content = bytearray((DATA / "images_best.pt").read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    content[directory : directory + 4] = b"xxxx"  # The record of the archive's end stays whole.
    (tmp_path / "images_best.pt").write_bytes(content)
    shutil.copy(DATA / "labels_best.pt", tmp_path)
    with pytest.raises(UserError, match=r"images_best\.pt is not a file of torch\.save"):
        imported(tmp_path, tmp_path / "images_best.pt")


def test_what_we_export_comes_back(tmp_path):
    (start,) = imported(tmp_path, DATA / "images_best.pt")
    export_file(start, str(tmp_path / "out"))
    (again,) = imported(tmp_path, tmp_path / "out" / "torch" / "images.pt")
    before, after = export.load_distilled(start), export.load_distilled(again)
    np.testing.assert_allclose(after.images, before.images, atol=1e-5)
    np.testing.assert_array_equal(after.labels, before.labels)


@pytest.mark.parametrize("name", ["distilled.pt", "../x_set.npz"])
def test_an_export_of_ours_is_not_taken_for_one_of_others(tmp_path, name):
    """Its images have their channels first, as RFAD's, and a preprocessing of their own."""
    (start,) = imported(tmp_path, DATA / "images_best.pt")
    shutil.copy(start, tmp_path / "x_set.npz")
    export_file(str(tmp_path / "x_set.npz"), str(tmp_path / "out"))
    with pytest.raises(UserError, match=r"is (in our form already|of an export of ours)"):
        imported(tmp_path, tmp_path / "out" / "torch" / name)


@pytest.mark.parametrize(("own", "reg"), [({}, 0.005), ({"jit": 0.02}, 0.02)])
def test_a_set_of_rfad_is_evaluated_by_its_own_kernel_and_ridge(tmp_path, capsys, own, reg):
    images, labels = standardised()
    np.savez(tmp_path / "best.npz", images=np.moveaxis(images, -1, 1), labels=labels, **own)
    (written,) = imported(tmp_path, tmp_path / "best.npz", "rfad")
    (line,) = (x for x in capsys.readouterr().out.splitlines() if "evaluate with" in x)
    options = ["architecture=convnet_plain", "depth=3", "kind=nngp"]
    kernel = " ".join(f"--config.kernel.{option}" for option in options)
    assert line.endswith(f" --config.reg={reg:g} {kernel}")
    assert export.load_distilled(written).provenance["layout"] == "rfad"


def standardised(count=10):
    dataset = data.load_dataset("digits")
    rows = a_draw(dataset.train_labels)[:count]
    fitted = preprocess.fit("standard", dataset.train_images)
    labels = np.eye(10)[dataset.train_labels[rows]] - 0.1
    return preprocess.apply(fitted, dataset.train_images[rows]), labels


@pytest.mark.parametrize(
    ("name", "configured", "expected"),
    [
        ("ConvNet_ssize10_nozca_l_noaug_ckpt5.npz", "standard", "standard"),
        ("ConvNet_ssize10_zca_l_noaug_ckpt5.npz", "standard", "zca_normalize"),
        ("mine.npz", "none", "none"),
    ],
)
def test_published_kip_files_keep_what_their_name_says(tmp_path, name, configured, expected):
    images, labels = standardised()
    np.savez(tmp_path / name, images=images, labels=labels)
    (written,) = imported(tmp_path, tmp_path / name, preprocess=configured)
    read = export.load_distilled(written)
    assert read.preprocess_name == expected
    np.testing.assert_array_equal(read.images, images)
    assert read.meta["class_names"] == list("0123456789")


def test_each_layout_has_its_makers_preprocessing():
    preprocessing = {
        (layout, dataset): preprocess_name(layout, Path("x.npz"), dataset, "none")
        for layout in layouts.LAYOUTS
        for dataset in ("mnist", "svhn", "cifar10")
    }
    assert [preprocessing["rfad", d] for d in ("mnist", "svhn", "cifar10")] == [
        "standard",
        "zca_normalize",
        "zca",
    ]
    assert [preprocessing["frepo", d] for d in ("mnist", "svhn")] == ["standard", "zca_center"]
    assert {preprocessing[layout, d] for layout in ("dc", "mtt") for d in ("mnist", "svhn")} == {
        "standard"
    }
    assert preprocessing["kip", "cifar10"] == "none"


def save(path, **changes):
    images, labels = standardised()
    contents = {"images": images, "labels": labels, **changes}
    np.savez(path, **{key: value for key, value in contents.items() if value is not None})


FIRST = np.zeros((10, 1, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("changes", "layout", "says"),
    [
        ({"images": FIRST}, "kip", "their channels come first, take --layout=rfad"),
        ({}, "rfad", "their channels come last, take --layout=kip or frepo"),
        ({"images": FIRST.reshape(10, -1)}, "auto", "they are flattened"),
        ({"images": np.zeros((10, 28, 28, 1))}, "auto", "set --config.dataset.name"),
        ({"images": np.random.default_rng(0).uniform(0, 1, (10, 8, 8, 1))}, "auto", "[0, 1]"),
        ({"images": np.random.default_rng(0).uniform(0, 255, (10, 8, 8, 1))}, "auto", "0..255"),
        ({"images": np.random.default_rng(0).normal(0, 99, (10, 8, 8, 1))}, "auto", "root mean"),
        ({"images": np.full((10, 8, 8, 1), np.nan)}, "auto", "NaN"),
        ({"images": np.full((10, 8, 8, 1), -1e-3)}, "auto", "root mean square 0.001"),
        ({"labels": np.arange(10) + 5}, "auto", "5 to 14"),
        ({"labels": np.zeros((10, 7))}, "auto", "(S, 10)"),
        ({"labels": np.zeros((9, 10))}, "auto", "10 images but 9 labels"),
        ({"labels": np.full((10, 10), np.nan)}, "auto", "labels with NaN or inf"),
        ({"labels": np.full((10, 10), 1e60)}, "auto", "labels with NaN or inf"),
        ({"labels": np.full((10, 10), "a")}, "auto", "labels are <U1 of shape (10, 10)"),
        ({"images": np.full((10, 8, 8, 1), "a")}, "auto", "NaN, inf or no numbers"),
        ({"images": None, "pictures": FIRST}, "auto", "holds the keys labels, pictures"),
        ({}, "frepo", "not of the layout frepo"),
        ({}, "dc", "not of the layout dc"),
        ({}, "gan", "--layout is auto or kip, rfad, frepo, dc, mtt"),
        ({"meta": np.array("{}")}, "auto", "in our form already"),
    ],
)
def test_wrong_files_are_refused_with_a_hint(tmp_path, changes, layout, says):
    save(tmp_path / "set.npz", **changes)
    with pytest.raises(UserError) as caught:
        imported(tmp_path, tmp_path / "set.npz", layout)
    line = str(caught.value)
    assert says in line
    assert "\n" not in line
    assert not list(tmp_path.glob("in/*"))


def test_the_file_itself_is_not_overwritten(tmp_path):
    path = shutil.copy(DATA / "views.pt", tmp_path / "views.pt")
    with pytest.raises(UserError, match=r"holds the file itself: take another folder"):
        import_file(small(), str(path), str(tmp_path), "auto")


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"is a folder: --distilled names the file to import"):
        imported(tmp_path, tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        imported(tmp_path, tmp_path / "absent.npz")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(UserError, match=r"not a file of torch\.save"):
        imported(tmp_path, tmp_path / "text.pt")
    torch_files.write(tmp_path / "none.pt", {"data": []})
    with pytest.raises(UserError, match=r"none\.pt holds no set"):
        imported(tmp_path, tmp_path / "none.pt")
    with pytest.raises(UserError, match="holds the keys expanded, flags"):
        imported(tmp_path, DATA / "views.pt")


def test_another_set_of_the_same_name_is_not_replaced(colours, tmp_path):
    config, dataset = colours
    rows = a_draw(dataset.train_labels)
    fitted = preprocess.fit("zca", dataset.train_images)
    images = preprocess.apply(fitted, dataset.train_images[rows]).transpose(0, 3, 1, 2)
    labels = np.eye(10)[dataset.train_labels[rows]] - 0.1
    first = {"images": images.astype(np.float64), "labels": labels}
    others = {"two": {"images": 1.1 * images}, "three": {"labels": 0.9 * labels}}
    for folder, changed in {"one": {}, **others}.items():
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "best.npz", jit=5e-3, **(first | changed))
    into = str(tmp_path / "in")
    for _ in range(2):  # The same set may come again.
        (written,) = import_file(config, str(tmp_path / "one" / "best.npz"), into, "rfad")
    before = Path(written).read_bytes()
    for folder in others:
        with pytest.raises(UserError, match=r"in/best\.npz holds another set of this name"):
            import_file(config, str(tmp_path / folder / "best.npz"), into, "rfad")
    assert Path(written).read_bytes() == before
