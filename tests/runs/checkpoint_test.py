"""Checkpoints come back bit for bit, or the one before them does."""

import errno
import shutil
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kip_flax.algorithms import kip
from kip_flax.runs import checkpoint
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.waiting import Stopped

META = {"config": {"seed": 1, "steps": (1, 2)}, "data": 7}


def state(seed):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(4, 3, 3, 1)).astype(np.float32)
    labels = rng.normal(size=(4, 2)).astype(np.float32)
    return kip.first_state(images, labels, optax.adam(0.1), learn_labels=True)


def saved(tmp_path, steps, keep=3):
    with checkpoint.open_manager(str(tmp_path), keep) as manager:
        for step in steps:
            checkpoint.save(manager, step, state(step), META)


def restore(tmp_path):
    with checkpoint.open_manager(str(tmp_path), 3) as manager:
        return checkpoint.restore(manager, jax.eval_shape(lambda: state(0)))


def assert_same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, np.asarray(other))


def arrays_file(tmp_path, step):
    """The file of the arrays: the largest one."""
    files = (p for p in (tmp_path / "checkpoints" / str(step) / "state").rglob("*") if p.is_file())
    return max(files, key=lambda path: path.stat().st_size)


def meta_file(tmp_path, step):
    return tmp_path / "checkpoints" / str(step) / "meta" / "metadata"


def truncate(path):
    path.write_bytes(path.read_bytes()[:20])


def test_what_a_kill_left_half_written_is_removed_before_anything_else(tmp_path):
    left = tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp-1" / "state"
    left.mkdir(parents=True)
    with checkpoint.open_manager(str(tmp_path), 3) as manager:
        assert not left.parent.exists()
        assert manager.all_steps() == []


def test_round_trip(tmp_path):
    saved(tmp_path, [5])
    restored = restore(tmp_path)
    assert restored.step == 5
    assert restored.meta == {"config": {"seed": 1, "steps": [1, 2]}, "data": 7, "step": 5}
    assert_same(restored.state, state(5))


class Older(flax.struct.PyTreeNode):
    """A state before a field was added."""

    step: jax.Array
    params: Any


class Newer(Older):
    """The state with the field."""

    average: Any = ()


def test_a_newer_field_is_not_missed_unless_it_holds_arrays(tmp_path):
    params = {"images": jnp.arange(6.0).reshape(2, 3)}
    older = Older(jnp.int32(4), params)
    with checkpoint.open_manager(str(tmp_path), 3) as manager:
        checkpoint.save(manager, 4, older, META)
    newer = Newer(jnp.int32(0), jax.tree.map(jnp.zeros_like, params))
    with checkpoint.open_manager(str(tmp_path), 3) as manager:
        found = checkpoint.restore(manager, newer)
        assert_same(found.state, Newer(older.step, older.params))
        with pytest.raises(UserError, match="no checkpoint in"):
            checkpoint.restore(manager, newer.replace(average=params))


def test_nothing_to_restore(tmp_path):
    assert restore(tmp_path) is None


def test_the_newest_ones_are_kept(tmp_path):
    saved(tmp_path, [1, 2, 3, 4], keep=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir() if p.is_dir()) == ["3", "4"]


def test_saving_copies_what_the_next_step_overwrites(tmp_path):
    source = jax.tree.map(np.array, state(1))
    with checkpoint.open_manager(str(tmp_path), 3) as manager:
        checkpoint.save(manager, 1, source, META)
        source.params["images"][:] = np.nan
    assert_same(restore(tmp_path).state, state(1))


@pytest.mark.parametrize("file", [arrays_file, meta_file])
def test_a_truncated_checkpoint_falls_back_with_a_warning(tmp_path, file, caplog):
    saved(tmp_path, [1, 2])
    truncate(file(tmp_path, 2))
    with checkpoint.open_manager(str(tmp_path), 3) as manager:
        assert checkpoint.restore_meta(manager)["step"] in (1, 2)
        restored = checkpoint.restore(manager, state(0))
        assert restored.step == 1
        assert_same(restored.state, state(1))
        checkpoint.save(manager, 2, state(9), META)
    assert "checkpoint 2 cannot be read" in caplog.text
    assert (RunFolder(tmp_path).unreadable_checkpoints / "2").is_dir()
    assert_same(restore(tmp_path).state, state(9))


def test_numbers_of_another_type_are_told_of_and_stay(tmp_path):
    """A Label Solve sums in float64, but not on a TPU."""
    saved(tmp_path, [1, 2])
    like = state(0)
    like.params["images"] = np.zeros((4, 3, 3, 1))
    with (
        checkpoint.open_manager(str(tmp_path), 3) as manager,
        pytest.raises(UserError, match=r"^checkpoint 2 .* has params/images in float32, and here "),
    ):
        checkpoint.restore(manager, like)
    assert restore(tmp_path).step == 2


def test_a_changed_byte_is_noticed(tmp_path):
    saved(tmp_path, [1, 2])
    text = meta_file(tmp_path, 2).read_text()
    meta_file(tmp_path, 2).write_text(text.replace('"seed": 1', '"seed": 2'))
    assert text != meta_file(tmp_path, 2).read_text()
    assert restore(tmp_path).step == 1


def test_checksum_sees_values_shapes_types_and_meta():
    base = {"a": np.zeros(4, np.float32)}
    sums = {
        checkpoint.checksum(tree, meta)
        for tree, meta in [
            (base, {}),
            ({"a": np.array([0, 0, 0, 1e-30], np.float32)}, {}),
            ({"a": np.zeros((2, 2), np.float32)}, {}),
            ({"a": np.zeros(4, np.int32)}, {}),
            ({"b": base["a"]}, {}),
            (base, {"step": 1}),
        ]
    }
    assert len(sums) == 6
    assert checkpoint.checksum(base, {}) == checkpoint.checksum(base, {"checksum": 5})


def test_no_readable_checkpoint_is_an_error_and_then_a_new_start(tmp_path):
    saved(tmp_path, [1, 2])
    for step in (1, 2):
        truncate(arrays_file(tmp_path, step))
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read") as caught:
        restore(tmp_path)
    assert "\n" not in str(caught.value)
    assert restore(tmp_path) is None


def test_a_full_disk_is_reported_before_anything_is_written(tmp_path, monkeypatch):
    with checkpoint.open_manager(str(tmp_path), 3) as manager:
        checkpoint.save(manager, 1, state(1), META)
        usage = type("Usage", (), {"free": 4096})
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
        with pytest.raises(UserError, match=r"checkpoints \(4 KiB are left and \d+ are needed\)"):
            checkpoint.save(manager, 2, state(2), META)
        assert list(manager.all_steps()) == [1]
    assert_same(restore(tmp_path).state, state(1))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "as the system says it"),
        ValueError(f"RESOURCE_EXHAUSTED: as TensorStore does [os_error_code='{errno.ENOSPC}']"),
    ],
)
@pytest.mark.parametrize("method", ["save", "wait_until_finished", "close"])
def test_a_disk_that_fills_up_meanwhile_is_one_line(tmp_path, monkeypatch, error, method):
    def fail(*args, **kwargs):
        raise error

    closing = []

    def save_twice():
        with checkpoint.open_manager(str(tmp_path), 3) as manager:
            checkpoint.save(manager, 1, state(1), META)
            checkpoint.wait(manager)
            closing.append(manager.close)
            monkeypatch.setattr(manager, method, fail)
            checkpoint.save(manager, 2, state(2), META)
            checkpoint.wait(manager)

    message = r"cannot write a checkpoint to .*/checkpoints \(No space left on device\)"
    with pytest.raises(UserError, match=message) as caught:
        save_twice()
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    closing[0]()
    assert restore(tmp_path).step in (1, 2)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, UserError])
def test_whatever_ends_it_the_last_save_is_whole(tmp_path, error):
    """A notebook goes on after Ctrl-C, and may call again at once."""

    def stopped():
        with checkpoint.open_manager(str(tmp_path), 3) as manager:
            checkpoint.save(manager, 1, state(1), META)
            raise error

    with pytest.raises(error):
        stopped()
    assert not list((tmp_path / "checkpoints").glob("*tmp*"))
    assert restore(tmp_path).step == 1


def test_a_stop_does_not_hide_that_a_save_failed(tmp_path, monkeypatch):
    def fail():
        raise OSError(errno.EDQUOT, "as the system says it")

    def stop():
        with checkpoint.open_manager(str(tmp_path), 3) as manager:
            closing.append(manager.close)
            monkeypatch.setattr(manager, "close", fail)
            raise Stopped

    closing = []
    with pytest.raises(UserError, match=r"cannot write a checkpoint to .*Disk quota exceeded"):
        stop()
    closing[0]()


def test_an_error_of_orbax_that_is_none_of_the_disk_stays(tmp_path, monkeypatch):
    with checkpoint.open_manager(str(tmp_path), 3) as manager:
        close = manager.close
        monkeypatch.setattr(manager, "save", lambda *a, **k: [][1])
        with pytest.raises(IndexError):
            checkpoint.save(manager, 1, state(1), META)
        close()
