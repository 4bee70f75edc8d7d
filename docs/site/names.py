"""Docstrings say `images, labels: ...` of several names at once; the API gives each its own row."""

import re
from typing import Any

import griffe

# The start of an entry: several names, and what is said of them in the same line.
_SEVERAL = re.compile(r"^( +)(\w+(?:, \w+)+): (.*)$", re.MULTILINE)
_SECTIONS = re.compile(r"^(?:Args|Attributes):\n(?:(?: .*)?\n?)*", re.MULTILINE)


class SeveralNames(griffe.Extension):
    """Gives each of the names in an entry of Args or Attributes an entry of its own."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the docstring of every object before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = _SECTIONS.sub(_split, obj.docstring.value)


def _split(section: re.Match[str]) -> str:
    return _SEVERAL.sub(_entries, section[0])


def _entries(entry: re.Match[str]) -> str:
    """The others go before the first, whose text may go on in the next lines."""
    indent, names, text = entry.groups()
    first, *others = names.split(", ")
    return "\n".join(
        [f"{indent}{name}: as {first}." for name in others] + [f"{indent}{first}: {text}"]
    )
