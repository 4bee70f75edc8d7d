"""`--mode=predict`: what transfer leaves is used on pictures, with every mistake in one line."""

import csv
import json
import os

import numpy as np
import pytest
from command import run
from made_transfers import make_config
from PIL import Image

from kip_flax import data, networks
from kip_flax.modes.predict import mode as predict
from kip_flax.modes.transfer.mode import transfer_file
from kip_flax.networks import rounds, saved
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_kernels")


@pytest.fixture(scope="module")
def transferred(files, tmp_path_factory, quick_kernels):
    """A workdir with the networks of a transfer, and its rows."""
    workdir = tmp_path_factory.mktemp("transferred")
    config = make_config(recipe="auto", networks=("fc:1", "mlp"), baselines=(), num_steps=100)
    return workdir, transfer_file(config, files, str(workdir))


@pytest.fixture
def pictures(tmp_path, digits):
    """Pictures of test digits, some below another folder."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for number, image in enumerate(digits.test_images[:6]):
        place = folder / "more" if number % 2 else folder
        Image.fromarray(image[..., 0]).save(place / f"{number}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def rows(workdir):
    with open(workdir / predict.FILE, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_the_kept_network_has_the_accuracy_of_the_transfer(transferred, digits):
    workdir, transfer_rows = transferred
    network = networks.load(workdir / "network")
    (row,) = (row for row in transfer_rows if row["network"] == network.name)
    assert network.facts["test"] == row["accuracies"][network.facts["seed"]]
    pixels, labels = data.test_subset(digits, 60)
    assert np.mean(network.predict(pixels).classes == labels) == network.facts["test"]
    assert network.facts["test"] > 0.3
    assert network.class_names == digits.class_names
    assert network.facts["recipe"].startswith("100 steps")


def test_it_is_the_best_on_held_out_images(files, tmp_path, monkeypatch):
    offered = []
    hand_over = rounds.Rounds._hand_over

    def watching(work, *arguments):
        trained = work.trained

        def noting(one):
            offered.append(one.held_out)
            trained(one)

        work.trained = noting
        hand_over(work, *arguments)
        work.trained = trained

    monkeypatch.setattr(rounds.Rounds, "_hand_over", watching)
    config = make_config(recipe="auto", networks=("fc:1", "mlp"), baselines=("random",))
    transfer_file(config, files, str(tmp_path))
    assert len(offered) == 2 * 3  # Of the distilled set alone.
    assert networks.load(tmp_path / "network").facts["held_out"] == max(offered)


def test_networks_without_a_normal_end_are_not_kept(files, tmp_path):
    config = make_config(recipe="auto", networks=("fc:1",), baselines=(), learning_rate=(1e30,))
    with pytest.raises(UserError, match="diverged"):
        transfer_file(config, files, str(tmp_path))
    assert not (tmp_path / "network").exists()


def test_outputs_less_those_at_the_start_are_used_so(files, tmp_path, digits):
    config = make_config(recipe="auto", networks=("fc:1",), baselines=(), centred=True)
    (row,) = transfer_file(config, files, str(tmp_path))
    network = networks.load(tmp_path / "network")
    assert len(network.weights) == 2
    pixels, labels = data.test_subset(digits, 60)
    share = np.mean(network.predict(pixels).classes == labels)
    assert share == row["accuracies"][network.facts["seed"]]


def test_the_table_has_what_the_network_says(transferred, pictures, tmp_path, digits):
    folder = str(transferred[0] / "network")
    assert predict.predict_pictures(networks.load(folder), str(pictures), str(tmp_path)) == 6
    head, *body = rows(tmp_path)
    assert head == ["file", "class", *(f"score of {name}" for name in digits.class_names)]
    order = [0, 2, 4, 1, 3, 5]
    assert [row[0] for row in body] == [
        f"{n}.png" if n % 2 == 0 else f"more/{n}.png" for n in order
    ]
    predictions = networks.load(folder).predict(digits.test_images[order])
    assert [row[1] for row in body] == predictions.names
    scores = np.array([row[2:] for row in body], np.float32)
    np.testing.assert_allclose(scores, predictions.scores, rtol=1e-5)


def test_pictures_that_cannot_be_read_are_named_and_the_rest_classified(
    transferred, pictures, tmp_path, capsys
):
    (pictures / "3 broken.png").write_bytes(b"\x89PNG")
    network = networks.load(transferred[0] / "network")
    with pytest.raises(SystemExit) as caught:
        predict.predict_pictures(network, str(pictures), str(tmp_path))
    assert caught.value.code == predict.UNREADABLE == 4
    assert len(rows(tmp_path)) == 7
    captured = capsys.readouterr()
    assert "3 broken.png is not a readable picture" in captured.err
    assert captured.err.count("\n") == 1
    assert "6 pictures" in captured.out


def test_a_name_that_is_no_text_keeps_its_bytes(transferred, pictures, tmp_path):
    (pictures / "0.png").rename(pictures / os.fsdecode(b"na\xefve.png"))
    network = networks.load(transferred[0] / "network")
    assert predict.predict_pictures(network, str(pictures), str(tmp_path)) == 6
    assert b"\nna\xefve.png," in (tmp_path / predict.FILE).read_bytes()


def test_mistakes_are_one_line(transferred, pictures, tmp_path):
    network, workdir = networks.load(transferred[0] / "network"), str(tmp_path / "out")
    with pytest.raises(UserError, match=r"no network in .*elsewhere"):
        predict.load_network(str(tmp_path / "elsewhere"), Console())
    with pytest.raises(UserError, match="missing is not a folder"):
        predict.predict_pictures(network, str(tmp_path / "missing"), workdir)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no picture"):
        predict.predict_pictures(network, str(empty), workdir)
    (empty / "x.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the 1 pictures in .* can be read"):
        predict.predict_pictures(network, str(empty), workdir)


def test_from_the_command_line(transferred, pictures, tmp_path):
    folder = f"--network={transferred[0] / 'network'}"
    where = (f"--pictures={pictures}", f"--workdir={tmp_path}")
    done = run("--mode=predict", folder, *where)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"6 pictures, {tmp_path / predict.FILE}\n")
    assert len(rows(tmp_path)) == 7
    lacking = run("--mode=predict", *where)
    assert (lacking.returncode, lacking.stderr.count("\n")) == (2, 1)
    assert "--mode=predict needs --network=PATH" in lacking.stderr
    both = run("--mode=predict", folder, "--distilled=some.npz", *where)
    assert (both.returncode, both.stderr) == (2, lacking.stderr)


def test_a_set_predicts_by_its_kernel_from_the_command_line(undisturbed, pictures, tmp_path):
    sets = RunFolder(undisturbed[0]).distilled()
    where = (f"--pictures={pictures}", f"--workdir={tmp_path}")
    done = run("--mode=predict", f"--distilled={sets[max(sets)]}", *where)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"6 pictures, {tmp_path / predict.FILE}\n")
    assert len(rows(tmp_path)) == 7


def test_ten_thousand_pictures_are_predicted_in_parts(monkeypatch, transferred):
    """Whatever the batch, the same scores."""
    network = networks.load(transferred[0] / "network")
    images = np.random.default_rng(0).integers(0, 256, (130, 8, 8, 1), dtype=np.uint8)
    whole = network.predict(images).scores
    monkeypatch.setattr(saved, "_BATCH", 8)
    np.testing.assert_allclose(network.predict(images).scores, whole, atol=1e-5)
    read_back = json.loads(json.dumps(network.facts))
    assert read_back == network.facts
