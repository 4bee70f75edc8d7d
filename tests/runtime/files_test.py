"""Files whole or not at all; a folder for one run at a time."""

import errno
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kip_flax.runtime import files
from kip_flax.runtime.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DEAD = 2**31 - 1  # No process has this number.

HOLD = """
import sys
from kip_flax.runtime import files
with files.locked(sys.argv[1], "the thing"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_no_file_of_arrays(tmp_path):
    with pytest.raises(UserError, match="is a folder and not a whole npz file: name one"):
        files.read_arrays(tmp_path)


def test_an_archive_of_other_files_is_no_file_of_arrays(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images", b"12")
    with pytest.raises(UserError, match=r"not a whole npz file of plain arrays \('images' is no"):
        files.read_arrays(tmp_path / "x.npz")


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path):
    path = tmp_path / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        message = f"the thing is in use by another run \\(process {holder.pid} on .*\\): wait"
        with pytest.raises(UserError, match=message) as caught, files.locked(path, "the thing"):
            pass
        assert "\n" not in str(caught.value)
        holder.kill()
    with files.locked(path, "the thing"):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
    with files.locked(path, "the thing"):
        pass


def test_what_a_kill_left_beside_whole_files_is_removed(tmp_path):
    files.write_json(tmp_path / "a" / "kept.json", {})
    files.write_json(tmp_path / "run" / ".lock", {})
    for folder in (tmp_path, tmp_path / "a", tmp_path / "run"):
        (folder / f".kept.json.{DEAD}.tmp").write_bytes(b"half")
    (tmp_path / f".kept.json.{os.getppid()}.tmp").write_bytes(b"of a process at work")
    (tmp_path / f".folder.{DEAD}.tmp").mkdir()
    (tmp_path / ".notes.tmp").write_bytes(b"of another program")
    (tmp_path / f".kept.json.{os.getpid()}.tmp").write_bytes(b"of a process that had this number")
    files.remove_temporaries(tmp_path, ".lock")
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    # A run of its own may be writing there.
    assert left == {
        *("a", "a/kept.json", "run", "run/.lock", f"run/.kept.json.{DEAD}.tmp"),
        *(f".kept.json.{os.getppid()}.tmp", f".folder.{DEAD}.tmp", ".notes.tmp"),
    }


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, [1])

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*a\.json: No space left on device; free"):
        files.write_json(path, [2])
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "[\n  1\n]\n"


@pytest.mark.parametrize(
    ("call", "module", "words"),
    [("flock", "fcntl", "cannot lock .*: No locks"), ("fsync", "os", "cannot write .*full")],
)
def test_a_lock_that_the_disk_refuses_is_one_line(call, module, words, tmp_path, monkeypatch):
    number, reason = (errno.ENOLCK, "No locks available") if call == "flock" else (28, "full")

    def refuse(*_):
        raise OSError(number, reason)

    monkeypatch.setattr(f"{module}.{call}", refuse)
    with pytest.raises(UserError, match=words), files.locked(tmp_path / ".lock", "it"):
        pass
