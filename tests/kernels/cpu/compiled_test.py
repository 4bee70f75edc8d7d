"""Where compiled code is kept."""

from kip_flax.kernels.cpu import compiled


def test_compiled_code_is_kept_apart_for_each_version_of_the_sources(monkeypatch, tmp_path):
    assert compiled.code_folder() == compiled.code_folder()
    (tmp_path / "rows.py").write_text("other\n")
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    one = compiled.code_folder.__wrapped__()
    (tmp_path / "rows.py").write_text("another\n")
    assert one != compiled.code_folder.__wrapped__() != compiled.code_folder()
