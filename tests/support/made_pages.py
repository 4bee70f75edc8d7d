"""Pages of runs whose numbers are known, and what is read from them."""

import base64
import io
import json
import re

import numpy as np
from made_runs import make_run
from PIL import Image

from kip_flax.modes.report import page as report

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
HOSTILE = ("<b>&\"'</b>", "</script>", *"23456789")

KINDS = {
    "plain": {},
    "label solve": {"algorithm": "ls", "steps": (0, 4), "moved": False},
    "no analysis": {"analysed": False},
    "running": {"status": "running", "analysed": False},
    "stopped": {"status": "stopped"},
    "zca, long names": {"preprocessing": "zca_normalize", "names": CIFAR, "shape": (6, 6, 3)},
    "hostile names": {"names": HOSTILE},
    "many classes": {"names": tuple(f"class {n}" for n in range(100)), "size": 100},
    "only step 0": {"steps": (0,)},
    "another algorithm": {"algorithm": "dc"},
    "an algorithm from elsewhere": {"algorithm": "somewhere.else"},
    "from noise": {"support__init": "noise"},
    "networks": {"networks": ("convnet_plain:3", "convnet_in")},
    "many images": {"size": 250, "names": tuple("abcde")},
}


def page(folder, **kind):
    sets = make_run(folder, **kind)
    report.write(folder, {})
    return (folder / "report.html").read_text(encoding="utf-8"), sets


def text_of(tree):
    return " ".join("".join(tree.itertext()).split()).replace("\u00a0", " ")


def data_of(html):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html)[1])


def pictures_of(html, selector):
    """The PNG of a rule of the style sheet, as an array."""
    rule = re.search(
        re.escape(selector) + r"[^{}]*\{[^{}]*background-image: url\(data:image/png;base64,([^)]*)",
        html,
    )
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(rule[1]))))
