"""Folders of runs as a run leaves them, made up from known numbers, for tests of their readers."""

import csv
import io
import json

import numpy as np

from configs import default
from kip_flax import config, export, preprocess
from kip_flax.runs import analysis
from kip_flax.runs.folder import RunFolder

NAMES = tuple("0123456789")


def make_run(
    folder,
    *,
    steps=(0, 1, 10),
    size=10,
    shape=(8, 8, 1),
    names=NAMES,
    status="finished",
    analysed=True,
    moved=True,
    relabelled=True,
    preprocessing="standard",
    seed=0,
    networks=(),
    **fields,
):
    """Writes a run of `steps` evaluations into `folder` and returns what is in its sets.

    Returns:
        {step: (pictures in [0, 1], labels)}.
    """
    rng = np.random.default_rng(seed)
    classes = len(names)
    cfg = default.get_config()
    cfg.support.size, cfg.num_steps, cfg.preprocess = size, steps[-1], preprocessing
    cfg.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    train = rng.integers(0, 256, (max(60, size), *shape), dtype=np.uint8)
    fitted = preprocess.fit(preprocessing, train)
    own = np.arange(size) * classes // size
    evaluations, sets = [], {}
    for number, step in enumerate(steps):
        pixels = (
            train[:size]
            if number == 0 or not moved
            else rng.integers(0, 256, (size, *shape), dtype=np.uint8)
        )
        labels = (np.eye(classes)[own] - 1 / classes).astype(np.float32)
        labels += (
            (number > 0) * relabelled * 0.3 * rng.standard_normal(labels.shape).astype(np.float32)
        )
        accuracy, mse = 0.5 + 0.4 * number / len(steps), 0.03 / (1 + number)
        evaluations.append({"step": step, "accuracy": accuracy, "mse": mse})
        if networks:
            evaluations[-1]["networks"] = network_rows(networks, number, step == steps[-1])
        _write_set(folder, cfg, fitted, preprocess.apply(fitted, pixels), labels, names, step)
        sets[step] = pixels / 255, labels
    _write_index(folder, cfg, evaluations)
    logged = [
        {"step": s, "loss": 0.03 / s, "accuracy": 0.5, "step_ms": 7.0} for s in range(1, steps[-1])
    ]
    RunFolder(folder).write_history(logged)
    result = {
        "status": status,
        "evaluations": evaluations,
        "seconds": 83.0,
        "step_ms": 7.0,
        "pairs_per_s": 1e5,
        "data": {
            "name": "digits",
            "train": 1438,
            "test": 359,
            "tested": 359,
            "image_shape": list(shape),
            "class_names": list(names),
        },
        "hardware": "2 x cpu (some, 2 cores)",
        "command": "main.py --config=configs/kip_digits.py",
        "versions": {"kip_flax": "0.1.0"},
    }
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "config.json").write_text(json.dumps(cfg.to_dict()))
    if analysed:
        _write_analysis(folder, cfg, steps[-1], size, classes, shape, rng)
    return sets


def network_rows(names, number, last):
    """20 % and 10 % more at each evaluation, of the second network 5 % less; at the end tested."""

    def row(name, on, mean):
        accuracies = [mean - 0.01, mean + 0.01]
        facts = {"network": name, "on": on, "recipe": "auto: some steps", "width": 128}
        spread = float(np.std(accuracies, ddof=1))
        return facts | {"accuracies": accuracies, "mean": mean, "std": spread, "l2": 0.0}

    means = {name: 0.2 + 0.1 * number - 0.05 * n for n, name in enumerate(names)}
    rows = [row(name, "held_out", mean) for name, mean in means.items()]
    return rows + [row(name, "test", mean + 0.02) for name, mean in means.items() if last]


def distilled_path(folder, cfg, step):
    number = min(step, 1) if cfg.algorithm == "ls" else step
    name = export.distilled_name("ConvNet", cfg.support.size, cfg.preprocess, True, False, number)
    return folder / "distilled" / f"{name}.npz"


def _write_set(folder, cfg, fitted, images, labels, names, step):
    export.write_distilled(
        distilled_path(folder, cfg, step),
        images,
        labels,
        export.Description(fitted, names, provenance={"config": config.identity(cfg)}),
    )


def _write_index(folder, cfg, evaluations):
    text = io.StringIO()
    writer = csv.DictWriter(text, export.INDEX_COLUMNS)
    writer.writeheader()
    for row in evaluations:
        path = distilled_path(folder, cfg, row["step"])
        number = path.stem.rpartition("ckpt")[2]
        entry = dict.fromkeys(export.INDEX_COLUMNS, "x") | {"ckpt": number, "URL": path.name}
        writer.writerow(entry)
    RunFolder(folder).index.write_text(text.getvalue())


def _write_analysis(folder, cfg, step, size, classes, shape, rng):
    shown = np.unique(np.linspace(0, size - 1, min(size, analysis.MAX_PICTURES)).round())
    counts = [rng.integers(0, 9, (classes, classes)) + 40 * np.eye(classes, dtype=int)] * 3
    near = len(shown), analysis.NEIGHBOURS
    found = {
        "eigenvalues": np.geomspace(30, 0.1, size),
        "initial_eigenvalues": np.geomspace(25, 0.2, size),
        "confusion": counts[0],
        "initial_confusion": counts[1],
        "solved_confusion": counts[2],
        "solved": np.array([0.7777, 0.021]),
        "nearest_rows": shown.astype(int),
        "nearest_labels": rng.integers(0, classes, near),
        "nearest_similarity": np.sort(rng.uniform(0.5, 1, near))[:, ::-1],
        "nearest_pixels": rng.integers(0, 256, (*near, *shape), dtype=np.uint8),
    }
    facts = {"step": step, "num_train": 200, "of_train": 1438, "num_test": 359, "of_test": 359}
    path = distilled_path(folder, cfg, step)
    RunFolder(folder).write_analysis(path, found, facts | {"seconds": 1.5})
