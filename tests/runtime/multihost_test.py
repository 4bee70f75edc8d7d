"""Several processes are one run: the same numbers, one set of files, one end."""

import json
import os
import re
import signal
import time

import jax
import numpy as np
import pytest
from faults import jobs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from configs import kip_digits
from kip_flax.modes.train import mode as train
from kip_flax.runtime import multihost, sharding
from kip_flax.runtime.errors import UserError

# Adam would magnify the rounding of gradients that are next to nothing.
SGD = ("--config.optimizer.name=sgd", "--config.optimizer.learning_rate=40.0")
STEPS = 12
# The pieces of what Gloo prints of its connections, in whatever order they come.
GLOO = (
    r"\[Gloo\] Rank |\d+| is connected to | peer ranks\. "
    r"|Expected number of connected peer ranks is : "
)


def flags(**fields):
    return [f"--config.{name.replace('__', '.')}={value}" for name, value in fields.items()]


def config(**fields):
    """What `jobs.DIGITS` and `SGD` say, for a run in this process."""
    config = kip_digits.get_config()
    config.kernel.architecture, config.kernel.depth, config.batch_size = "fc", 1, 30
    config.optimizer.name, config.optimizer.learning_rate = "sgd", 40.0
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return config


def short(num_steps):
    every = {"log__every_steps": 1, "checkpoint__every_steps": 5}
    return {"num_steps": num_steps, "report__num_train": 0} | every  # No analysis to compile.


def losses(workdir):
    """All losses, by step, from the TensorBoard files."""
    events = EventAccumulator(str(workdir / "metrics"), size_guidance={"tensors": 0})
    events.Reload()
    return {event.step: float(make_ndarray(event.tensor_proto)) for event in events.Tensors("loss")}


def sets(workdir):
    found = {}
    for path in (workdir / "distilled").glob("*.npz"):
        with np.load(path) as content:
            found[path.name] = content["images"], content["labels"]
    return found


def assert_close(got, expected):
    assert got.keys() == expected.keys()
    for name in got:
        for one, other in zip(got[name], expected[name], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_two_processes_are_one_run_and_go_on_as_one(tmp_path):
    """2 processes x 2 devices against 1 x 4, then both to the end in 1 process, on 2 devices."""
    marks = "(0, 6)"
    two = jobs.start(
        tmp_path / "two", *SGD, *flags(**short(STEPS), eval__steps=marks), processes=2, devices=2
    )
    train.train_and_evaluate(config(**short(STEPS), eval__steps=(0, 6)), str(tmp_path / "one"))
    ends = jobs.finish(two, 300)
    assert [code for code, _, _ in ends] == [0, 0], ends
    output, silent = ends[0][1], ends[1][1]
    assert "4 x cpu" in output
    assert "in 2 processes; mesh 4 x 1" in output
    assert output.count("finished in") == 1
    # Gloo writes from several threads at once: text of one, text of the other, two ends of lines.
    assert re.sub(GLOO, "", silent) == "\n" * silent.count("[Gloo]")
    expected = losses(tmp_path / "one")
    assert sorted(expected) == list(range(1, STEPS + 1))
    assert losses(tmp_path / "two") == pytest.approx(expected, rel=1e-5)
    assert min(expected.values()) < 0.8 * expected[1]
    assert_close(sets(tmp_path / "two"), sets(tmp_path / "one"))
    assert len(list((tmp_path / "two" / "metrics").iterdir())) == 1
    saved = tmp_path / "two" / "checkpoints" / str(STEPS) / "state"
    assert {path.name for path in saved.glob("ocdbt.process_*")} == {
        "ocdbt.process_0",
        "ocdbt.process_1",
    }

    for name in ("one", "two"):
        longer = config(**short(STEPS + 6), eval__steps=(0, 6), mesh__data=2)
        state = train.train_and_evaluate(longer, str(tmp_path / name))
        assert state.step == STEPS + 6
    assert_close(sets(tmp_path / "two"), sets(tmp_path / "one"))


PRIVATE = {
    "algorithm": "dp_kip",
    "preprocess": "none",
    "support__init": "noise",
    "report__num_train": 0,
    "privacy__delta": 1e-4,
    "optimizer__learning_rate": 0.1,
}


@pytest.mark.slow
@pytest.mark.parametrize("noise_seed", [3, -1])
def test_two_processes_have_one_secret(tmp_path, noise_seed, monkeypatch):
    """Their draws and noise are those of one process with the key that they kept."""
    fields = PRIVATE | {**short(6), "privacy__noise_seed": noise_seed, "num_steps": 6}
    two = jobs.start(
        tmp_path / "two", *SGD, *flags(**fields, eval__steps="(0,)"), processes=2, devices=2
    )
    ends = jobs.finish(two, 300)
    assert [code for code, _, _ in ends] == [0, 0], ends
    fields |= {"eval__steps": (0,)}
    again = train.train_and_evaluate(config(**fields), str(tmp_path / "two"))
    secret, drawn = np.asarray(again.secret).tobytes(), os.urandom
    monkeypatch.setattr(os, "urandom", lambda n: secret if n == len(secret) else drawn(n))
    alone = train.train_and_evaluate(config(**fields), str(tmp_path / "one"))
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"algorithm": "ls_cross_entropy", "batch_size": 301},  # Padded on four devices.
        {"algorithm": "kip_solve", "eval__label_loss": "cross_entropy", "num_steps": 2},
    ],
)
def test_two_processes_find_the_same_labels_by_cross_entropy(tmp_path, fields):
    two = jobs.start(
        tmp_path / "two", *SGD, *flags(**fields, eval__steps="(0,)"), processes=2, devices=2
    )
    train.train_and_evaluate(config(**fields, eval__steps=(0,)), str(tmp_path / "one"))
    ends = jobs.finish(two, 300)
    assert [code for code, _, _ in ends] == [0, 0], ends
    found, expected = sets(tmp_path / "two"), sets(tmp_path / "one")
    assert found.keys() == expected.keys()
    for name, (images, labels) in expected.items():
        np.testing.assert_allclose(found[name][0], images, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found[name][1], labels, atol=1e-2)


def test_from_four_devices_to_two_and_back(tmp_path):
    whole = train.train_and_evaluate(config(**short(15)), str(tmp_path / "whole"))
    for steps, devices in ((5, 4), (10, 2), (15, 4)):
        moved = train.train_and_evaluate(
            config(**short(steps), mesh__data=devices), str(tmp_path / "moved")
        )
    for one, other in zip(jax.tree.leaves(moved), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def wait_for(path, seconds=300):
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.1)


ENDLESS = flags(num_steps=100000, checkpoint__every_steps=5, eval__steps="(0,)")


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_a_signal_at_one_process_stops_both_at_the_same_step(tmp_path, process):
    with jobs.running(tmp_path, *ENDLESS, processes=2, devices=2) as both:
        wait_for(tmp_path / "checkpoints" / "10")
        both[process].send_signal(signal.SIGTERM)
        ends = jobs.finish(both, 200)
    assert [code for code, _, _ in ends] == [0, 0], ends
    stopped = max(jobs.steps_saved(tmp_path))
    assert f"stopped and saved at step {stopped}" in ends[0][1]
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "stopped"


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_takes_the_other_along_and_nothing_else(tmp_path, killed):
    with jobs.running(tmp_path, *ENDLESS, processes=2, devices=2) as both:
        wait_for(tmp_path / "checkpoints" / "10")
        both[killed].kill()
        ends = jobs.finish(both, 200)
    assert ends[killed][0] == -signal.SIGKILL
    assert ends[1 - killed][0] not in (0, None)
    assert "another task died" in ends[1 - killed][2] or "cannot go on" in ends[1 - killed][2]
    saved = max(jobs.steps_saved(tmp_path))
    resumed = [f"--config.num_steps={saved + 5}", "--config.eval.steps=(0,)"]
    ((code, output, _),) = jobs.finish(jobs.start(tmp_path, *resumed, devices=4), 200)
    assert code == 0
    assert f"going on from the checkpoint of step {saved}" in output


def test_agreements_of_one_process_cost_nothing():
    flag = iter([False, True])
    asked = multihost.agreed(lambda: next(flag))
    assert [asked(), asked()] == [False, True]
    assert multihost.any_process(True)
    multihost.check_same("anything", b"value")
    secret = np.array([1, 2], np.uint32)
    assert multihost.of_first(secret) is secret
    with pytest.raises(ZeroDivisionError), multihost.raise_everywhere():
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("host:1", None, None), "--num_processes and --process_id missing"),
        ((None, 2, 0), "--coordinator_address missing"),
        (("host:1", 2, 2), "numbered from 0"),
        (("host:1", 2, -1), "numbered from 0"),
        (("host", 2, 0), "lacks a port: write HOST:PORT"),
    ],
)
def test_flags_that_do_not_fit_together(given, message):
    with pytest.raises(UserError, match=message) as caught:
        multihost.start(*given, environment={})
    assert "\n" not in str(caught.value)


SLURM = {"SLURM_NTASKS": "2", "SLURM_STEP_NODELIST": "n[1-2]"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        (SLURM, True),
        (SLURM | {"SLURM_NTASKS": "1"}, False),
        ({"SLURM_NTASKS": "2"}, False),  # In a batch script, before srun.
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://h:1"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"MEGASCALE_NUM_SLICES": "2"}, True),
        ({"JAX_COORDINATOR_ADDRESS": "host:1"}, True),
    ],
)
def test_launchers_are_seen_where_they_started_several(environment, expected):
    assert multihost.launched(environment) is expected
    if not expected:
        multihost.start(None, None, None, environment=environment)
        assert not jax.distributed.is_initialized()


def test_each_device_gets_its_share_and_no_more():
    """What the processes of a run have in common: whole arrays in, a part on each device."""
    mesh = sharding.make_mesh(4)
    images = np.arange(8.0, dtype=np.float32).reshape(8, 1, 1, 1)
    put, _, _ = sharding.put_targets(mesh, images, images[:, 0, 0])
    for shard in put.addressable_shards:
        np.testing.assert_array_equal(shard.data, images[shard.index])
        assert len(shard.data) == 2
