"""docs/messages.md: every error that the program raises for users, read from its sources.

python docs/site/messages.py   writes it anew
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "messages.md"
_HEAD = """# Messages

For readers who look for a line that the program ended with. Each error is one line on stderr,
`error: ` and what is wrong, and exit code 2 ([all exit codes](#exit-codes)). An ellipsis stands for
what differs: names, numbers, paths. [Troubleshooting](troubleshooting.md) explains the lines that
ask for more than a line. Written by `python docs/site/messages.py` from the sources.

## Exit codes

| Code | Meaning |
|---|---|
| 0 | finished, or stopped by SIGTERM or Ctrl-C with everything saved |
| 2 | a mistake, which one line explains |
| 3 | one of several processes was lost; start all again |
| 4 | some pictures could not be read (`--mode=predict`); the others have their rows |
| 130 | stopped by Ctrl-C without saving |
"""
# The part of the program, by the beginning of a module's path within kip_flax/.
_AREAS = {
    "modes/command_line": "The command line",
    "config": "The configuration",
    "algorithms": "Algorithms",
    "data": "Data",
    "preprocess": "Preprocessing",
    "architectures": "Kernels and architectures",
    "kernels": "Kernels and architectures",
    "krr": "Kernel ridge regression",
    "networks": "Networks",
    "export": "Files of sets",
    "runs": "Runs",
    "modes": "Modes",
    "runtime": "Files, devices and processes",
}


@dataclass(frozen=True)
class Message:
    """An error of the program.

    Attributes:
        area: part of the program.
        wrong: what is wrong.
        remedy: what is allowed, or what to do; '' where the first part says it.
    """

    area: str
    wrong: str
    remedy: str


def read(package: Path = ROOT / "kip_flax") -> list[Message]:
    """The errors of all modules, each once, by area."""
    found = [
        Message(_area(path.relative_to(package).as_posix()), *_parts(text))
        for path in sorted(package.rglob("*.py"))
        for text in texts(path.read_text(encoding="utf-8"))
    ]
    areas = list(dict.fromkeys(_AREAS.values()))
    unique = dict.fromkeys(one for one in found if one.remedy != "…")
    return sorted(unique, key=lambda one: (areas.index(one.area), one.wrong.lower(), one.remedy))


def texts(source: str) -> Iterator[str]:
    """The text of every UserError that a source makes, with an ellipsis for what differs."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "UserError":
            text = _text(node.args[0])
            if any(letter.isalpha() for letter in text):
                yield text


def _text(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(_text(value) for value in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left) + _text(right)
    return "…"


def _area(path: str) -> str:
    return next(area for start, area in _AREAS.items() if path.startswith(start))


def _parts(text: str) -> tuple[str, str]:
    """The text before and after the last colon that begins a remedy."""
    wrong, _, remedy = text.rpartition(": ")
    return (wrong, remedy) if len(wrong.strip("… ")) > 3 else (text, "")


def render() -> str:
    """The page."""
    page, area = _HEAD, ""
    for message in read():
        if message.area != area:
            area = message.area
            page += f"\n## {area}\n\n| What is wrong | What to do |\n|---|---|\n"
        page += f"| {_cell(message.wrong)} | {_cell(message.remedy)} |\n"
    return page


def _cell(text: str) -> str:
    """As it reads in a table: no markup, no line breaks."""
    for mark in "\\|*_<>[]`":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
