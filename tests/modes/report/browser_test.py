"""The report in a real browser, from a file: no errors, slider, phone width, nothing that jumps.

Skipped where there is no playwright (tests/requirements-browser.txt) or no Chromium.
"""

import os
import shutil

import numpy as np
import pytest
from made_runs import make_run

from kip_flax.modes.report import page as report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
DESKTOP, PHONE = (1280, 800), (390, 844)
STEPS = (0, 1, 10)


@pytest.fixture(scope="module")
def browser():
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with playwright.sync_playwright() as tools:
        if path is None and not os.path.exists(tools.chromium.executable_path):
            pytest.skip("there is no Chromium: apt-get install chromium, or set CHROMIUM")
        started = tools.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """name -> address of a page."""
    kinds = {
        "plain": {},
        "many": {"size": 200, "shape": (32, 32, 3), "preprocessing": "none"},
        "long names": {"names": tuple(f"a rather long name {n}" for n in range(10))},
        "hundred": {"names": tuple(f"class {n}" for n in range(100)), "size": 100},
        "label solve": {"algorithm": "ls", "steps": (0, 4), "moved": False},
        "networks": {"networks": ("convnet_plain:3", "convnet_in", "resnet18_in")},
        "running": {"status": "running", "analysed": False},
    }
    found = {}
    for name, kind in kinds.items():
        folder = tmp_path_factory.mktemp("page")
        make_run(folder, **{"steps": STEPS, **kind})
        report.write(folder, {})
        found[name] = folder / "report.html"
    both = [found["plain"].parent, found["label solve"].parent]
    found["two"] = tmp_path_factory.mktemp("two") / report.COMPARISON
    report.write_comparison(both, found["two"], {})
    return {name: path.as_uri() for name, path in found.items()}


@pytest.fixture
def opened(browser, pages):
    """opened(name, size, **options) -> a page; what it complained of fails the test at its end."""
    contexts, errors = [], []

    def open_page(name, size=DESKTOP, **options):
        viewport = {"width": size[0], "height": size[1]}
        context = browser.new_context(viewport=viewport, offline=True, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: errors.append(message.text))
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("requestfailed", lambda request: errors.append(request.url[:80]))
        tab.add_init_script(
            "window.shift = 0; new PerformanceObserver((list) => { for (const e of "
            "list.getEntries()) window.shift += e.value; }).observe({type: 'layout-shift', "
            "buffered: true});"
        )
        tab.goto(pages[name])
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


def background(tab, selector):
    return tab.eval_on_selector(selector, "e => getComputedStyle(e).backgroundImage")


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize(
    "name", ["plain", "many", "long names", "hundred", "label solve", "networks", "two"]
)
def test_nothing_sticks_out_and_nothing_jumps(opened, name, size):
    tab = opened(name, size)
    tab.mouse.wheel(0, 3000)
    for slider in tab.get_by_role("slider").all():
        slider.press("Home")
        slider.press("End")
    tab.wait_for_timeout(150)
    assert tab.evaluate("window.shift") == 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= size[0]
    for fold in tab.query_selector_all("summary"):
        fold.click()
    assert tab.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_the_slider_by_keyboard(opened):
    tab = opened("plain")
    slider = tab.get_by_role("slider", name="Evaluated step")
    assert slider.input_value() == "2"
    last = background(tab, ".now")
    slider.focus()
    slider.press("ArrowLeft")
    assert tab.locator("output").inner_text().startswith("step 1: test accuracy 63.33 %")
    assert slider.get_attribute("aria-valuetext") == tab.locator("output").inner_text()
    assert background(tab, ".now") != last
    slider.press("Home")
    assert tab.locator("output").inner_text().startswith("step 0: ")
    assert background(tab, ".now") == background(tab, ".before")
    slider.press("End")
    assert background(tab, ".now") == last


def test_the_slider_by_mouse_and_the_buttons(opened):
    tab = opened("plain")
    slider = tab.get_by_role("slider", name="Evaluated step")
    box = slider.bounding_box()
    tab.mouse.click(box["x"] + 3, box["y"] + box["height"] / 2)
    assert slider.input_value() == "0"
    tab.get_by_role("button", name="One step on").click()
    assert slider.input_value() == "1"
    tab.get_by_role("button", name="One step back").click()
    assert slider.input_value() == "0"
    tab.get_by_role("button", name="Play").click()
    tab.wait_for_function("document.querySelector('input[type=range]').value === '2'", timeout=5000)
    tab.get_by_role("button", name="Play").wait_for()


def test_labels_and_cursor_follow_the_slider(opened, tmp_path):
    sets = make_run(tmp_path, steps=STEPS)  # The same seed: the same labels.
    tab = opened("plain")
    bars = tab.locator(".bars").nth(3)
    path_at_the_end = tab.locator(".bars .own").nth(3).get_attribute("d")
    slider = tab.get_by_role("slider", name="Evaluated step")
    for step, key in ((1, "ArrowLeft"), (0, "Home"), (10, "End")):
        slider.press(key)
        label = sets[step][1][3]
        aria_label = bars.get_attribute("aria-label").replace("\N{MINUS SIGN}", "-")
        best = int(np.argmax(np.abs(label)))
        assert aria_label.startswith(f"Label of image 4: {best} {label[best]:.2f}")
        shown = tab.locator(".cards .value").nth(3).inner_text().replace("\N{MINUS SIGN}", "-")
        assert float(shown) == pytest.approx(label[3], abs=0.011)
        cursor = tab.locator("svg[data-scale] .cursor").first
        x = float(cursor.get_attribute("x1"))
        assert x == pytest.approx(58 + 368 * np.log(1 + step) / np.log(11), abs=0.1)
    drawn = tab.locator(".bars .own").nth(3).get_attribute("d")
    numbers = [
        [float(n) for n in d.replace("h-8z", "").replace("h8V", " ")[1:].split()]
        for d in (drawn, path_at_the_end)
    ]
    np.testing.assert_allclose(*numbers, atol=0.11)  # The script draws as the page did.


def test_a_page_that_reloads_keeps_its_place(opened):
    tab = opened("running")
    tab.get_by_role("slider", name="Evaluated step").press("Home")
    tab.locator("summary").first.click()
    tab.wait_for_function("location.hash.includes('open')")
    tab.reload()
    assert tab.get_by_role("slider", name="Evaluated step").input_value() == "0"
    assert tab.locator("output").inner_text().startswith("step 0: ")
    assert tab.locator("details").first.get_attribute("open") is not None
    tab.get_by_role("slider", name="Evaluated step").press("End")
    assert "step" not in tab.evaluate("location.hash")  # At the end it follows the run.


def test_a_running_page_reloads_by_itself_and_a_finished_one_does_not(opened):
    for name, expected in (("running", 2), ("plain", 1)):
        tab = opened(name)
        tab.clock.install()
        tab.reload()
        tab.evaluate("window.mark = 1")
        tab.clock.run_for(16_000)
        tab.wait_for_timeout(300)
        assert (tab.evaluate("window.mark") is None) is (expected == 2)


def test_code_is_copied(opened):
    tab = opened("plain", permissions=["clipboard-read", "clipboard-write"])
    tab.get_by_role("button", name="Copy").first.click()
    tab.get_by_role("button", name="Copied").wait_for()
    assert "export.load_distilled" in tab.evaluate("navigator.clipboard.readText()")


def test_light_dark_and_print_differ_as_they_should(opened):
    grounds = {}
    for scheme in ("light", "dark"):
        tab = opened("plain", color_scheme=scheme)
        grounds[scheme] = tab.eval_on_selector("body", "e => getComputedStyle(e).backgroundColor")
    assert grounds == {"light": "rgb(247, 247, 245)", "dark": "rgb(17, 19, 23)"}
    tab = opened("plain", color_scheme="dark")
    tab.emulate_media(media="print")
    colours = "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
    assert tab.eval_on_selector("body", colours) == ["rgb(27, 28, 30)", "rgb(255, 255, 255)"]
    assert not tab.get_by_role("button", name="Play").is_visible()
    assert tab.locator(".tile").first.is_visible()
    assert len(tab.pdf()) > 10_000


def test_without_scripts_the_last_set_and_all_else_is_there(opened):
    tab = opened("plain", java_script_enabled=False)
    assert "url(" in tab.locator(".now").first.evaluate("e => getComputedStyle(e).backgroundImage")
    assert tab.locator("svg.chart").count() == 4


def test_everything_can_be_reached_by_keyboard(opened):
    tab = opened("plain")
    reached = set()
    for _ in range(60):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("document.activeElement.tagName"))
    assert {"INPUT", "BUTTON", "SUMMARY", "A", "PRE"} <= reached
