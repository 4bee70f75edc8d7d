"""What all pages share: escaping, numbers in words, pictures as addresses."""

import base64

import jinja2
import pytest

from kip_flax.modes import pages
from kip_flax.modes.pages import MINUS, TIMES


def parts(source, **values):
    """A template that uses the shared parts."""
    environment = pages._environment("kip_flax.modes.report")
    text = f'{{% import "parts.html.jinja" as parts %}}{source}'
    return environment.from_string(text).render(**values)


def test_values_are_escaped_and_misspelled_names_are_errors():
    html = parts("{{ parts.table(['<a>'], [['\"']], caption) }}", caption="it's <b>")
    assert '<th scope="col" class="text">&lt;a&gt;</th>' in html
    assert '<th scope="row">&#34;</th>' in html
    assert 'aria-label="it&#39;s &lt;b&gt;"' in html
    with pytest.raises(jinja2.UndefinedError, match="captoin"):
        parts("{{ captoin }}", caption="")
    with pytest.raises(jinja2.TemplateNotFound):
        pages.render("kip_flax.modes.report", "nothing.html.jinja")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (300.0, "300"),
        (-0.25, f"{MINUS}0.25"),
        (0.0, "0"),
        (1e-6, f"1.00 {TIMES} 10<sup>{MINUS}6</sup>"),
        (9999.0, "9999"),
        (12345.0, f"1.23 {TIMES} 10<sup>4</sup>"),
        (-123456.0, f"{MINUS}1.23 {TIMES} 10<sup>5</sup>"),
        (float("inf"), "∞"),
    ],
)
def test_large_and_small_figures_are_powers_of_ten(value, expected):
    assert parts("{{ parts.figure(value) }}", value=value) == expected


def test_an_empty_fact_is_left_out():
    assert parts("{% call parts.fact('name') %}{{ value }}{% endcall %}", value="") == ""
    html = parts("{% call parts.fact('name') %}{{ value }}{% endcall %}", value="<b>")
    assert html == "<dt>name</dt><dd>&lt;b&gt;</dd>\n"


def test_numbers_as_a_person_reads_them():
    assert pages.percent(0.9387) == "93.87\N{NO-BREAK SPACE}%"
    assert pages.points(-0.354) == f"{MINUS}35.4 points"
    assert pages.signed(-0.214) == f"{MINUS}0.21"
    assert (pages.signed(-0.001), pages.points(-0.0001)) == ("0.00", "+0.0 points")
    assert pages.plural(1, "image") == "1 image"
    assert pages.plural(12345, "tile of targets") == "12,345 tiles of targets"
    assert [pages.shortened(text, 4) for text in ("four", "fives")] == ["four", "fiv…"]


def test_a_picture_is_its_own_address():
    address = pages.data_url(b"\xfb\xff\xfe")
    kind, _, data = address.partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == b"\xfb\xff\xfe"
    assert parts("{{ png|data_url }}", png=b"\xfb\xff\xfe") == address
