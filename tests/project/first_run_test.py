"""What the first run says is what the page shows: the same lines, but for times and the machine."""

import re
import shlex

import pytest
from command import ROOT, linked, python

PAGE = (ROOT / "docs" / "first-run.md").read_text(encoding="utf-8")


def recorded():
    """The command of the page, and the lines below it."""
    (command, *_) = re.findall(r"^```bash\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)
    (lines,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return shlex.split(command), lines.splitlines()


def shape(line):
    """Without what differs from run to run: machine, versions, times, speeds, folders."""
    line = re.sub(r"\S*/(?=runs/)", "", line)
    line = re.sub(r"^( *devices ).*", r"\1", line)
    line = re.sub(r"\d[\d.,]*( ?(k|M|GB|MB|MiB|GiB|ms|s|min|h)\b)*", "N", line)
    return re.sub(r"N(\s+N)*", "N", " ".join(line.split()))


def accuracies(lines):
    return [float(x) for line in lines for x in re.findall(r"(\d+\.\d\d)%", line)]


def events(lines):
    """The lines that every run has: not compiling, which is once, nor progress and its pace."""
    progress = r"(compil(ing|ed)|expected to end|step N/N)"
    return [line for line in map(shape, lines) if not re.match(progress, line)]


def test_the_page_shows_a_whole_run():
    command, lines = recorded()
    assert command[1:] == ["main.py", "--config=configs/kip_digits.py", "--workdir=runs/digits"]
    assert lines[-1].startswith("report ")
    assert accuracies(lines)[0] == 58.50
    assert accuracies(lines)[-1] == 93.87


@pytest.mark.slow
def test_the_first_run_says_what_the_page_shows(tmp_path):
    command, lines = recorded()
    done = python(linked(tmp_path), *command[1:])
    assert (done.returncode, done.stderr) == (0, "")
    printed = done.stdout.splitlines()
    assert events(printed) == events(lines)
    assert accuracies(printed) == pytest.approx(accuracies(lines), abs=0.6)
