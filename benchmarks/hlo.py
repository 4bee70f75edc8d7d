"""The text of a program that XLA compiled: its computations, instructions and arrays."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%(?P<name>\S+) \(.*\{$")
_LINE = re.compile(
    r"^\s*(?P<root>ROOT )?%(?P<name>\S+) = (?P<shape>\(.*?\)|\S+) (?P<op>[\w-]+)\((?P<args>.*?)\)"
    r"(?P<rest>.*)$"
)
_ARRAY = re.compile(r"(?P<kind>pred|bf16|[fsuc]\d+)\[(?P<dims>[\d,]*)\](?:\{(?P<layout>[^}]*)\})?")


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        name, op: of it and of its operation.
        shape: of its result; `arrays` reads it.
        args: what stands between its brackets: operands, or the value of a constant.
        rest: what follows them.
        root: whether it is the result of its computation.
    """

    name: str
    op: str
    shape: str
    args: str
    rest: str
    root: bool

    @property
    def operands(self) -> list[str]:
        """The names of its operands."""
        return re.findall(r"%([\w.-]+)", self.args)


class Array(NamedTuple):
    """An array of a shape: the number of its elements, their bytes, its layout ('': not named)."""

    elements: int
    bytes: int
    layout: str


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """The instructions of each computation, and the name of the entry."""
    computations: dict[str, list[Instruction]] = {}
    entry, lines = "", list[Instruction]()
    for raw in text.splitlines():
        if head := _COMPUTATION.match(raw):
            lines = computations.setdefault(head["name"], [])
            entry = head["name"] if head["entry"] else entry
        elif found := _LINE.match(re.sub(r"/\*.*?\*/", "", raw)):
            name, op, shape, args, rest = found.group("name", "op", "shape", "args", "rest")
            lines.append(Instruction(name, op, shape, args, rest, root=bool(found["root"])))
    return computations, entry


def arrays(shape: str) -> Iterator[Array]:
    """The arrays of a shape: one, or those of a tuple."""
    for found in _ARRAY.finditer(shape):
        elements = math.prod(int(size) for size in found["dims"].split(",") if size)
        bits = 8 if found["kind"] == "pred" else int(re.sub(r"\D", "", found["kind"]))
        yield Array(elements, bits // 8 * elements, found["layout"] or "")


def size(shape: str) -> int:
    """Bytes of all arrays of a shape."""
    return sum(array.bytes for array in arrays(shape))
