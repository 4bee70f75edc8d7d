"""`--mode=evaluate`: test accuracy and error of a distilled set by kernel ridge regression."""

from pathlib import Path

from ml_collections import ConfigDict

from kip_flax import config as config_lib
from kip_flax import export
from kip_flax.kernels.sharded import shard_kernel
from kip_flax.runs import evaluate, setup
from kip_flax.runtime import files, hardware, multihost, sharding
from kip_flax.runtime.console import Console

EVALUATION = "evaluation.json"


@sharding.with_float64
def evaluate_file(
    config: ConfigDict, path: str, workdir: str | None = None, console: Console | None = None
) -> dict[str, float]:
    """Test `accuracy` (0 to 1) and `mse` of the distilled set in `path` with the config's kernel.

    The preprocessing is read from the file; if it has none, as published files, it is fitted on the
    training images. The result is also written to `evaluation.json` in `workdir`, if given.

    Raises:
        UserError: the file is broken, or does not fit the data set or the configuration, its
            regularised kernel is not positive definite, or `workdir` lies among the pictures.
    """
    console = console or Console(silent=not multihost.is_first())
    if workdir:
        setup.check_apart(workdir, config)
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.support)
    with multihost.raise_everywhere():
        distilled = export.load_distilled(path)
    multihost.check_same("the set of --distilled", distilled.path.read_bytes())
    dataset = setup.load(config)
    config_lib.check_kernel(config, dataset)
    with multihost.raise_everywhere():
        fitted = setup.preprocessing_of(distilled, config, dataset, config.preprocess)
    if note := setup.note_on_kernel(distilled, config):
        console.say(note)
    kernel = shard_kernel(setup.make_kernel(config, console), mesh)
    measure = evaluate.on_test_images(config, dataset, fitted, kernel, mesh)
    measures = measure(*sharding.replicate(mesh, (distilled.images, distilled.labels)))
    console.outcome(
        f"{path} on {dataset.name}: {dataset.split} accuracy {measures['accuracy']:.2%}, "
        f"mse {measures['mse']:.5f}, by KRR ({setup.words_of_krr(config)})"
    )
    if workdir and multihost.is_first():
        content = {
            "distilled": path,
            "dataset": dataset.name,
            "evaluated_on": dataset.split,
            **measures,
            "config": config.to_dict(),
            "hardware": hardware.hardware(),
            "versions": hardware.versions(),
        }
        files.write_json(Path(workdir) / EVALUATION, content)
    return measures
