"""How a run was set up, for the report: loading its set, configuration, time and versions."""

from html import escape
from typing import Any

from kip_flax.modes.report.facts import Facts
from kip_flax.modes.report.text import NONE, TIMES, code, facts, fold, table
from kip_flax.runtime import console


def use(run: Facts, uid: str) -> str:
    """How to load the last set; empty where there is none."""
    if not run.files:
        return ""
    path = run.files[max(run.files)]
    name = f"{path.parent.name}/{path.name}"
    ours = f"""from kip_flax import export, preprocess

file = export.load_distilled("{name}")
images, labels = file.images, file.labels  # train on these
pictures = preprocess.invert(preprocess.from_arrays(file.preprocess), images)  # about [0, 1]"""
    plain = f"""import numpy as np

with np.load("{name}") as file:
    images, labels = file["images"], file["labels"]"""
    shape, classes = TIMES.join(map(str, (run.size, *run.image_shape))), len(run.class_names)
    return (
        f"<p>In the folder of the run, <code>{escape(name)}</code> holds float32 images of "
        f"{shape}, in the space of the preprocessing ({escape(str(run.config['preprocess']))}), "
        f"and labels of {run.size}{TIMES}{classes}, one-hot minus 1/{classes} where they were not "
        f"changed.</p>{code(f'{uid}-ours', ours)}"
        f"<p>Without kip_flax:</p>{code(f'{uid}-plain', plain)}"
    )


def configuration(run: Facts, uid: str) -> str:
    """What differs from the defaults, where they are known, and all fields."""
    flat, defaults = run.config, run.defaults
    rows = [[name, str(value)] for name, value in flat.items()]
    everything = fold(
        f"{uid}-fields", f"All {len(rows)} fields", table(["field", "value"], rows, "All fields", 2)
    )
    if not defaults:
        return everything
    differing = [
        [name, str(value), str(defaults.get(name, NONE))]
        for name, value in flat.items()
        if value != defaults.get(name)
    ]
    told = table(["field", "here", "default"], differing, "What differs from configs/default.py", 3)
    return (told if differing else "<p>All fields have their defaults.</p>") + everything


def cost(run: Facts) -> str:
    """Times, hardware, versions, command."""
    result: dict[str, Any] = run.result
    found = run.analysis or {}
    speed = ""
    if "step_ms" in result:
        speed = f"{result['step_ms']:,.1f} ms a step"
    if result.get("pairs_per_s"):
        speed += f", {console.count(result['pairs_per_s'])} kernel entries a second"
    versions = ", ".join(f"{name} {v}" for name, v in result.get("versions", {}).items())
    after = f"{found['seconds']:.1f} s after the run" if "seconds" in found else ""
    return facts(
        [
            ("hardware", escape(str(result.get("hardware", "")))),
            ("time", f"{console.duration(result['seconds'])}, with evaluations"),
            ("speed at the end", speed),
            ("this analysis", after),
            ("command", f"<code>{escape(str(result.get('command', '')))}</code>"),
            ("folder", f"<code>{escape(str(run.workdir))}</code>"),
            ("versions", escape(versions)),
        ]
    )
