"""The console at a terminal (a real one, of the system) and in a log; numbers in words."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from kip_flax.runtime import console as console_lib
from kip_flax.runtime.console import Console, count, duration

ROOT = Path(__file__).resolve().parents[2]
PLAIN = {"NO_COLOR": "1", "TERM": "xterm"}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_a_terminal_rewrites_the_line_of_progress(monkeypatch):
    monkeypatch.setenv("COLUMNS", "31")
    stream = Terminal()
    console = Console(stream, environment=PLAIN)
    console.mark("step 0: test accuracy 10%", "test 10%")
    console.progress("step 1", "3 ms/step", "ETA 9 s")
    console.mark("step 2: test accuracy 20%", "test 20%")
    console.progress("step 3", "much more than fits here", "ETA 7 s")
    console.say("done")
    lines = stream.getvalue().split("\n")
    assert lines[0] == "step 0: test accuracy 10%"
    assert [part.rstrip() for part in lines[1].split("\r")] == [
        "",
        "step 1  test 10%  ETA 9 s",
        "step 1  test 20%  ETA 9 s",
        "step 3  test 20%  ETA 7 s",
    ]
    assert {len(part) for part in lines[1].split("\r")[1:]} == {30}
    assert lines[2:] == ["done", ""]


def test_a_narrow_terminal_keeps_one_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "9")
    stream = Terminal()
    Console(stream, environment=PLAIN).progress("step 1000/2000", "ETA 7 s")
    assert stream.getvalue() == "\rstep 100"


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_can_be_left_out(environment, coloured):
    stream = Terminal()
    Console(stream, environment=environment).say("a heading", [("name", "what"), ("x", "y")])
    assert ("\x1b[" in stream.getvalue()) == coloured
    plain = re.sub(r"\x1b\[\d+m", "", stream.getvalue())
    assert plain == "a heading\n  name  what\n  x     y\n"


def test_elsewhere_lines_are_plain_and_stay(capsys):
    with Console() as console:
        console.progress("step 1", "3 ms/step", "ETA 9 s")
        console.mark("step 1: test accuracy 10%", "test 10%")
        console.progress("step 2")
        console.say("a heading", [("name", "what")])
    assert capsys.readouterr().out.splitlines() == [
        "step 1  3 ms/step  ETA 9 s",
        "step 1: test accuracy 10%",
        "step 2",
        "a heading",
        "  name  what",
    ]


def test_paths_are_given_from_the_current_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Console().say(
        f"in {tmp_path}/runs/one", [("set", f"{tmp_path}/a.npz"), ("home", str(tmp_path))]
    )
    Console().progress(f"/elsewhere{tmp_path}/b and {tmp_path.parent}/c")
    assert capsys.readouterr().out == (
        f"in runs/one\n  set   a.npz\n  home  {tmp_path}\n"
        f"/elsewhere{tmp_path}/b and {tmp_path.parent}/c\n"
    )
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    Console().say(f"in {tmp_path}")
    assert capsys.readouterr().out == f"in {tmp_path}\n"
    monkeypatch.chdir("/")
    Console().say(f"in {tmp_path}")
    assert capsys.readouterr().out == f"in {tmp_path}\n"


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_quiet_leaves_outcomes_and_silent_nothing(stream):
    outputs = {}
    for options in ({"quiet": True}, {"silent": True}):
        out = stream()
        with Console(out, environment=PLAIN, **options) as console:
            console.say("a")
            console.mark("b", "b")
            console.progress("c", "d")
            console.outcome("e")
        outputs.update({key: out.getvalue() for key in options})
    assert outputs == {"quiet": "e\n", "silent": ""}


def on_a_terminal(*arguments, columns=80, **environment):
    """What `main.py` writes to a terminal of so many columns: all bytes as text, and its code."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    inherited = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "main.py", *arguments],
        cwd=ROOT,
        env=inherited | {"TERM": "xterm", **environment},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    parts = []

    def read():
        try:
            while part := os.read(leader, 4096):
                parts.append(part)
        except OSError:  # Linux says so when the other side is closed.
            pass

    reader = threading.Thread(target=read)
    reader.start()
    code = process.wait()
    reader.join()
    os.close(leader)
    return b"".join(parts).decode().replace("\r\n", "\n"), code


QUICK = (
    *("--config=configs/kip_digits.py", "--config.kernel.architecture=fc"),
    *("--config.kernel.depth=1", "--config.num_steps=6", "--config.batch_size=30"),
    *("--config.eval.steps=(0,4)", "--config.mesh.cpu_devices=1", "--config.log.every_steps=2"),
)


@pytest.mark.slow
def test_a_run_at_a_terminal_rewrites_one_line_and_quiet_none(tmp_path):
    text, code = on_a_terminal(*QUICK, f"--workdir={tmp_path}/run")
    assert code == 0
    lines = text.split("\n")
    rewritten = [line for line in lines if "\r" in line]
    assert len(rewritten) == 1
    shown = [part.rstrip() for part in rewritten[0].split("\r")[1:]]
    assert [re.match(r"step \d/6", part)[0] for part in shown] == [
        "step 2/6",
        "step 4/6",
        "step 4/6",
        "step 6/6",
        "step 6/6",
    ]
    for part in shown:
        assert len(part) < 80
        assert re.fullmatch(r"step \d/6  loss 0\.\d+  test \d+\.\d\d%  ETA \d+ s.*", part), part
    accuracies = [re.search(r"test (\S+)", part)[1] for part in shown]
    assert accuracies[0] == accuracies[1]
    assert accuracies[2] == accuracies[3]
    assert lines[0].startswith("\x1b[1mkip_flax ")
    closing = text[text.index("finished in") :]
    assert re.search(rf"test accuracy\S*  {accuracies[0]} at step 0, {accuracies[4]}", closing)
    for path in re.findall(r"(/\S+\.(?:npz|png|json))$", closing, re.MULTILINE):
        assert Path(path).is_file()

    more = ("--quiet", "--config.num_steps=8", f"--workdir={tmp_path}/run")
    text, code = on_a_terminal(*QUICK, *more, NO_COLOR="1")
    assert code == 0
    assert text.startswith("finished in ")
    assert text.count("\n") == 6


@pytest.mark.slow
def test_an_error_at_a_terminal_has_a_line_of_its_own(tmp_path):
    text, code = on_a_terminal(
        *QUICK,
        "--config.optimizer.learning_rate=1e30",
        "--config.eval.steps=(0,)",
        f"--workdir={tmp_path}",
        NO_COLOR="1",
    )
    assert code == 2
    *_, last = text.strip().split("\n")
    assert last.startswith("error: the loss is not finite")
    assert "\x1b" not in text


def test_clock_names_the_day_when_it_is_another():
    now = time.mktime((2026, 5, 30, 22, 30, 0, 0, 0, -1))
    assert console_lib.clock(600, now) == "22:40"
    assert console_lib.clock(7200, now) == "2026-05-31 00:30"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(8.4, "8 s"), (59.9, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_counts_in_words():
    assert [count(n) for n in (950, 12300, 4.56e6)] == ["950", "12.3k", "4.56M"]
    assert [count(n) for n in (999.4, 999.6, 999_600)] == ["999", "1k", "1M"]


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [("latin-1", "1 ± 2 \\u2248 3"), ("ascii", "1 \\xb1 2 \\u2248 3"), ("utf-8", "1 ± 2 ≈ 3")],
)
def test_what_the_stream_cannot_encode_is_escaped(encoding, printed):
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding=encoding)
    Console(stream).say("1 ± 2 ≈ 3")
    assert buffer.getvalue().decode(encoding) == printed + "\n"


def test_a_reader_that_has_gone_ends_nothing():
    """As after `python main.py | head -1`: the rest is not written, and the program ends with 0."""
    code = (
        "import sys, time; from kip_flax.runtime.console import Console; console = Console()\n"
        "for n in range(3): console.say('x' * 10); time.sleep(0.2)\n"
        "print('done', file=sys.stderr)"
    )
    run = [sys.executable, "-c", code]
    child = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "x" * 10 + "\n"
    child.stdout.close()
    assert child.stderr.read() == "done\n"
    assert child.wait() == 0
