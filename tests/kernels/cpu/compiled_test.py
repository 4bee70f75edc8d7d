"""Where compiled code is kept."""

import os
import tempfile
from pathlib import Path

import pytest

from kip_flax.kernels.cpu import compiled
from kip_flax.runtime.errors import UserError


def test_compiled_code_is_kept_apart_for_each_version_of_the_sources(monkeypatch, tmp_path):
    assert compiled.code_folder.__wrapped__() == compiled.code_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "rows.py").write_text("other\n")
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    one = compiled.code_folder.__wrapped__()
    (tmp_path / "rows.py").write_text("another\n")
    assert one != compiled.code_folder.__wrapped__() != compiled.code_folder()


@pytest.mark.parametrize("changed", ["processor", "features", "numba", "python", "time", "nothing"])
def test_what_makes_numba_compile_anew_has_a_folder_of_its_own(monkeypatch, tmp_path, changed):
    """So code in the folder is code that can be used, and a cold start is known to be one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "rows.py").write_text("other\n")
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    one = compiled.code_folder.__wrapped__()
    if changed == "processor":
        monkeypatch.setattr(compiled.binding, "get_host_cpu_name", lambda: "another")
    elif changed == "features":
        without = dict.fromkeys(compiled.binding.get_host_cpu_features(), False)
        features = compiled.binding.FeatureMap(without)
        monkeypatch.setattr(compiled.binding, "get_host_cpu_features", lambda: features)
    elif changed == "numba":
        monkeypatch.setattr(compiled.numba, "__version__", "0.0.1")
    elif changed == "python":
        monkeypatch.setattr(compiled.sys, "version_info", (3, 99, 0))
    elif changed == "time":
        os.utime(tmp_path / "rows.py", ns=(1, 1))
    assert (compiled.code_folder.__wrapped__() == one) == (changed == "nothing")


def test_where_the_cache_cannot_be_written_the_user_s_temporary_folder_takes_its_place(
    monkeypatch, tmp_path
):
    (tmp_path / "file").write_text("")  # No folder can be made below a file, even by root.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = Path(compiled.code_folder.__wrapped__())
    assert folder.parent == tmp_path / f"kip_flax-{os.getuid()}"
    assert folder.is_dir()
    refused = pytest.raises(UserError, match="set XDG_CACHE_HOME to a folder that can be written")
    folder.parent.chmod(0o777)  # Others may put code there.
    with refused:
        compiled.code_folder.__wrapped__()
    folder.parent.rename(tmp_path / "elsewhere")
    folder.parent.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").chmod(0o700)
    with refused:
        compiled.code_folder.__wrapped__()
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    (tmp_path / f"kip_flax-{os.getuid()}").mkdir(mode=0o700)  # Made by another user.
    with refused:
        compiled.code_folder.__wrapped__()
