"""The pages against the program: links, commands, and the lines of errors; the site builds."""

import ast
import html
import inspect
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from whole_runs import small

import main
from kip_flax import config as config_lib
from kip_flax import data, export, krr, modes
from kip_flax.config import FIELDS
from kip_flax.modes.export_set import mode as export_set
from kip_flax.modes.train import mode as train
from kip_flax.modes.transfer import sets as transfer_sets
from kip_flax.modes.transfer import table as transfer_table
from kip_flax.networks import recipe
from kip_flax.runs import setup
from kip_flax.runtime import disk, files
from kip_flax.runtime.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
OTHERS = [ROOT / "README.md", *sorted((ROOT / "results").rglob("*.md"))]


def blocks(path, language):
    text = path.read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for found, block in fenced if found == language]


def anchors(path):
    """As the site makes them out of headings."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    titles = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title) for title in titles]
    plain = (re.sub(r"[^\w\s-]", "", title).strip().lower() for title in titles)
    return {re.sub(r"[\s-]+", "-", title) for title in plain}


def dead_links(page):
    """Relative links of a page that lead to no file, folder or heading of the repository."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize(
    "page", [*PAGES, *OTHERS], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_links_lead_somewhere(page):
    assert dead_links(page) == []


def test_a_dead_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One `two`\n[a](page.md#one-two) [b](#one) [c](gone.md) ![d](gone.png) [e](http://x)\n"
        "```\n[f](no-link.md)\n```\n"
    )
    assert dead_links(page) == ["#one", "gone.md", "gone.png"]


def named_files(page):
    """Files and folders of the project that a page names, with the folder in front."""
    text = page.read_text(encoding="utf-8")
    packages = "|".join(p.name for p in (ROOT / "kip_flax").iterdir() if p.is_dir())
    paths = re.findall(r"`((?:kip_flax|configs|tests|benchmarks|results)/[\w./-]*[\w/])`", text)
    within = re.findall(rf"`((?:{packages})/[\w./-]*\.py)`", text)
    return sorted({*paths, *(f"kip_flax/{path}" for path in within)})


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    missing = [path for path in named_files(page) if not (ROOT / path).exists()]
    assert [path for path in missing if "NAME" not in path] == []


def test_a_file_that_is_not_there_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("`kip_flax/no_such.py`, `runs/none.py` and `configs/default.py`")
    missing = [path for path in named_files(page) if not (ROOT / path).exists()]
    assert missing == ["kip_flax/no_such.py", "kip_flax/runs/none.py"]


def test_every_page_is_in_the_navigation():
    listed = (ROOT / "docs" / "site" / "mkdocs.yml").read_text(encoding="utf-8")
    assert sorted(re.findall(r": ([\w-]+\.md)$", listed, re.MULTILINE)) == [p.name for p in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_page_says_first_for_whom_it_is(page):
    title, paragraph = page.read_text(encoding="utf-8").split("\n\n")[:2]
    assert title.startswith("# ")
    assert paragraph.startswith("For readers ")


def test_the_navigation_has_the_four_kinds_of_pages():
    listed = (ROOT / "docs" / "site" / "mkdocs.yml").read_text(encoding="utf-8")
    kinds = re.findall(r"^  - ([\w-]+):$", listed.partition("nav:\n")[2], re.MULTILINE)
    assert kinds == ["Tutorials", "How-to", "Explanation", "Reference"]


def own_source(words):
    """The sources of the program of ours that a command runs; '' for other programs."""
    if "-m" in words:
        path = ROOT / words[words.index("-m") + 1].replace(".", "/")
        files = [*path.glob("*.py"), path.with_suffix(".py")]
        shared = [ROOT / "examples" / "arguments.py"]
    else:
        files, shared = [ROOT / word for word in words if word.startswith("benchmarks/")], []
    found = [file.read_text(encoding="utf-8") for file in files if file.is_file()]
    ours = ("benchmarks", "examples", "results")
    assert found or not any(word.startswith(ours) for word in words[1:3]), words
    return "".join(found + [file.read_text(encoding="utf-8") for file in shared if found])


COMMANDS = [block for page in PAGES for block in blocks(page, "bash")]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_name_files_and_flags_that_exist(command):
    words = shlex.split(command, comments=True)
    for word in words:
        name, _, value = word.partition("=")
        if name.startswith("--config."):
            assert name.removeprefix("--config.") in FIELDS
        elif name == "--mode":
            assert value in modes.NAMES
        elif name.startswith("--") and words[1] == "main.py":
            assert name.removeprefix("--") in main.FLAGS
        elif name.startswith("--") and (source := own_source(words)):
            assert f'"{name}"' in source, name
        if name == "--config":
            assert (ROOT / value.partition(":")[0]).is_file()


def test_every_mode_has_a_how_to():
    commands = " ".join(blocks(ROOT / "docs" / "howto.md", "bash"))
    assert [mode for mode in modes.NAMES if f"--mode={mode}" not in commands] == ["train"]


def api():
    """(module, names) of the page; no names: all of the module's."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    named = re.findall(
        r"^::: (\S+)(?:\n    options:\n      members: \[(.*)\])?", text, re.MULTILINE
    )
    assert len(named) == text.count("\n::: ") > 10
    return [(module, list(filter(None, members.split(", ")))) for module, members in named]


def test_the_api_names_modules_and_functions_that_exist():
    for module, members in api():
        loaded = import_module(module)
        assert inspect.getdoc(loaded)
        for name in members:
            assert callable(getattr(loaded, name)), (module, name)


def taken_by_examples():
    """(module, name) of all that examples import from the package, or use of a module of it."""
    for path in sorted((ROOT / "examples").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        modules = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("kip_flax"):
                for name in node.names:
                    if inspect.ismodule(found := getattr(import_module(node.module), name.name)):
                        modules[name.asname or name.name] = found.__name__
                    else:
                        yield node.module, name.name
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                module = modules.get(node.value.id)
                if module and hasattr(import_module(module), node.attr):  # Or of a variable.
                    yield module, node.attr


def test_examples_take_what_the_api_names():
    """It is named where it is written, or where it is taken from."""
    named = dict(api())
    missing = set()
    for module, name in taken_by_examples():
        found = getattr(import_module(module), name)
        places = {module, getattr(found, "__module__", module)}
        if not any(p in named and name in (named[p] or [name]) for p in places):
            missing.add((module, name))
    assert missing == set()


# The lines of errors: each is provoked.


def raised(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return str(caught.value)


def not_positive_definite():
    k = np.full((2, 2), 1, np.float32) - np.eye(2, dtype=np.float32)
    return raised(krr.check_positive_definite, k, 1e-6)


def another_experiment():
    old = small(batch_size=200)
    return raised(
        config_lib.check_same_experiment, old.to_dict(), small(batch_size=100), "runs/digits"
    )


def in_use(folder, monkeypatch):
    monkeypatch.setattr(files.os, "getpid", lambda: 4711)
    monkeypatch.setattr(files.platform, "node", lambda: "node1")
    lock, what = folder / "lock", "the workdir runs/digits"
    with files.locked(lock, what):
        return raised(files.locked(lock, what).__enter__)


def full_disk():
    def write():
        with disk.writing("runs/digits/checkpoints"):
            raise OSError(28, "No space left on device")

    return raised(write)


def a_set(shape, name, meta=None):
    meta = meta or {"preprocess": name}
    return export.Distilled(Path("set.npz"), np.zeros((10, *shape)), np.zeros((10, 10)), meta, None)


def misfits():
    digits = data.load_dataset("digits")
    yield raised(export.check_fits, a_set((8, 8, 1), "zca_normalize"), digits, "standard")
    yield raised(export.check_fits, a_set((32, 32, 3), "standard"), digits, "standard")
    meta = {"preprocess": "zca_normalize", "preprocess_file": "preprocess-0123456789ab.npz"}
    yield raised(export_set._preprocessing, a_set((8, 8, 1), "", meta))


def whole_runs(folder, monkeypatch):
    """A run whose steps are too large, and one that goes on with other test and training images."""
    wild = small(optimizer__learning_rate=1e30, log__every_steps=2, eval__steps=(0,))
    yield raised(train.train_and_evaluate, wild, str(folder / "wild"))
    run = small(num_steps=1)
    monkeypatch.chdir(folder)
    train.train_and_evaluate(run, "runs/digits")
    for part in ("fingerprint_of_tests", "fingerprint"):
        monkeypatch.setattr(setup, part, lambda _: 0)
        yield raised(train.train_and_evaluate, run, "runs/digits")


def normal(line):
    """Without what differs from run to run: numbers of steps, the folder's path."""
    line = re.sub(r"/\S*(?=runs/digits)", "", line)
    return re.sub(r"step \d+", "step N", line)


def test_the_errors_are_the_programs_own(tmp_path, monkeypatch, quick_kernels):
    page = ROOT / "docs" / "troubleshooting.md"
    lines = [line for block in blocks(page, "") for line in block.splitlines()]
    assert all(line.startswith("error: ") for line in lines)
    table = transfer_table.Table(str(tmp_path), {}, 0, "a.npz")
    table.add_diverged("distilled", 10, "kernel")
    images = transfer_sets.ImageSet("distilled", np.zeros((1, 10, 2, 2, 1)), np.zeros((1, 10, 10)))
    provoked = [
        *whole_runs(tmp_path, monkeypatch),
        another_experiment(),
        in_use(tmp_path, monkeypatch),
        full_disk(),
        *misfits(),
        raised(table.check_diverged, ["kernel"], [images], recipe.make("kip", 10)),
        raised(krr.check_positive_definite, np.full((2, 2), np.nan), 1e-6),
        not_positive_definite(),
    ]
    expected = sorted(f"error: {normal(line)}" for line in provoked)
    assert sorted(normal(line) for line in lines) == expected


# The site.


def dead_links_of_site(site):
    """Addresses in the pages of a built site that lead to none of its files or ids."""
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    ids = {path: set(re.findall(r'\bid="([^"]*)"', text)) for path, text in pages.items()}
    found = []
    for path, text in pages.items():
        if path.name == "404.html":  # Its addresses count from the root of a server.
            continue
        for address in re.findall(r'<(?:a|img|link|script)\b[^>]*?(?:href|src)="([^"]*)"', text):
            name, _, anchor = html.unescape(address).partition("#")
            if re.match(r"[a-z]+:", name):
                continue
            target = (path.parent / name).resolve() if name else path
            target = target / "index.html" if target.is_dir() else target
            known = ids.get(target, {anchor})
            if not target.is_file() or (anchor and anchor not in known):
                found.append(f"{path.relative_to(site)}: {address}")
    return found


def test_a_dead_link_of_a_site_is_found(tmp_path):
    (tmp_path / "other.html").write_text('<p id="here"></p>')
    (tmp_path / "page.html").write_text(
        '<a href="other.html#here"><a class="x" href="other.html#gone"><img src="gone.png">'
        '<a href="https://example.org/gone">'
    )
    assert dead_links_of_site(tmp_path) == [
        "page.html: other.html#gone",
        "page.html: gone.png",
    ]


def test_the_site_builds_without_a_warning_and_opens_offline(tmp_path):
    done = subprocess.run(  # Not --quiet: it would silence the warnings that --strict counts.
        [
            *(sys.executable, "-m", "mkdocs", "build", "--strict"),
            *("-f", "docs/site/mkdocs.yml", "-d", str(tmp_path / "site")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert dead_links_of_site(tmp_path / "site") == []
    for page in PAGES:
        built = (tmp_path / "site" / page.with_suffix(".html").name).read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="(https?:[^"]*)"', built)
        assert fetched == []
    method = (tmp_path / "site" / "method.html").read_text(encoding="utf-8")
    assert method.count("<math") >= 10
    assert "arithmatex" not in method
    api = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    assert 'id="kip_flax.krr.ridge.solve"' in api
    assert "mean diagonal entry" in api  # Of its docstring.
