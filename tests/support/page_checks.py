"""Checks of a page that need no browser: a strict parser, and contrast from its style sheet."""

import re
from itertools import pairwise

from tinyhtml5.parser import HTMLParser

# Text and what it lies on; marks (lines, bars) and what they lie on.
TEXT = [
    ("ink", "page"),
    ("ink", "card"),
    ("ink", "code"),
    ("soft", "page"),
    ("soft", "card"),
    ("accent", "page"),
    ("accent", "card"),
    ("ink", "best"),
    ("soft", "best"),
]
MARKS = [
    (mark, on)
    for mark in ("accent", "train", "start", "solved", "network", "bar")
    for on in ("page", "card")
]


def parse(html):
    """The tree, and the parser's complaints."""
    parser = HTMLParser(namespace_html_elements=False)
    tree = parser.parse(html)
    for element in tree.iter():
        if isinstance(element.tag, str):  # A comment's is not.
            element.tag = element.tag.rpartition("}")[2]  # SVG keeps its namespace.
    return tree, parser.errors


def colours(css, dark):
    """Colour name -> (r, g, b) of the light or the dark scheme."""
    light, night = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[:2]
    blocks = (light, night) if dark else (light,)
    found = {}
    for block in blocks:
        for name, value in re.findall(r"--(\w+): #([0-9a-f]{6});", block):
            found[name] = tuple(int(value[i : i + 2], 16) for i in (0, 2, 4))
    return found


def tint(css, dark):
    """The strongest shade of the confusion matrix, 0 to 1."""
    return int(re.findall(r"--tint: (\d+)%", css)[dark]) / 100


def contrast(one, other):
    """WCAG 2.2, relative luminance: 1 to 21."""
    values = sorted((_luminance(one), _luminance(other)))
    return (values[1] + 0.05) / (values[0] + 0.05)


def mixed(one, other, share):
    return tuple(share * a + (1 - share) * b for a, b in zip(one, other, strict=True))


def _luminance(colour):
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def heading_levels(tree):
    return [int(e.tag[1]) for e in tree.iter() if re.fullmatch(r"h[1-6]", str(e.tag))]


def skips_no_level(levels):
    return levels[0] == 1 and all(b <= a + 1 for a, b in pairwise(levels))
