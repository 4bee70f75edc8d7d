"""What the noise of RFAD's estimated kernel adds to the loss, and what `rfad.debias` leaves of it.

    python -m benchmarks.estimate --set=FILE --data=data [--networks 4 8 16] [--widths 64 32 16]

The cross-entropy of a distilled set on random training images, as a mean over `--draws` draws of
the networks: estimated by all networks of a draw, debiased by their halves
(`kip_flax.algorithms.rfad.Estimate`), and by the exact NNGP kernel. The factor of the predictions
is the best one of the exact kernel.
"""

import argparse
import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks import output
from kip_flax import data, export, krr, preprocess
from kip_flax.algorithms import rfad
from kip_flax.algorithms.rfad import Estimate
from kip_flax.kernels import Kernel
from kip_flax.krr import feature_kernel
from kip_flax.runs import setup
from kip_flax.runtime import hardware, sharding
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import in_one_line

_LOG_SCALES = np.arange(0, 4, 0.1)


def main() -> None:
    """Measures, prints a table, writes JSON where asked."""
    args = _arguments()
    sharding.prepare_cpu_devices()
    sharding.configure_jax()
    file = export.load_distilled(args.set)
    config = importlib.import_module(f"configs.rfad_{args.dataset}").get_config()
    problem = Problem(config, file.images, file.labels, *_targets(config, file, args))
    exact, log_scale = problem.exact()
    print(f"{args.set}, {args.targets} training images; {hardware.hardware()}")
    print(f"exact kernel: {exact:.4f}, predictions times {np.exp(log_scale):.2f}")
    print(f"{'networks':>9}{'width':>7}{'estimated':>11}{'debiased':>10}{'exact':>8}")
    rows = []
    for number, width in zip(args.networks, args.widths, strict=True):
        plain, debiased = problem.estimated(number, width, args.draws, log_scale)
        rows.append({"networks": number, "width": width, "exact": exact, "estimated": plain})
        rows[-1]["debiased"] = debiased
        print(f"{number:9d}{width:7d}{plain:11.4f}{debiased:10.4f}{exact:8.4f}", flush=True)
    output.write(args.json, rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", required=True, help="file of a distilled set (.npz)")
    parser.add_argument("--data", default="data", help="folder of the data set's files")
    parser.add_argument("--dataset", default="cifar10", choices=("cifar10", "mnist", "digits"))
    parser.add_argument("--networks", type=int, nargs="+", default=[4, 8, 16], help="even numbers")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 32, 16])
    parser.add_argument("--targets", type=int, default=600)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--json", default="")
    args = parser.parse_args()
    if len(args.networks) != len(args.widths):
        parser.error("--networks and --widths go together: give as many of each.")
    if any(number < 2 or number % 2 for number in args.networks):
        parser.error("--networks are even numbers: one half is compared with the other.")
    return args


def _targets(
    config: ConfigDict, file: export.Distilled, args: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray]:
    """Random training images in the preprocessing of the set, and their classes."""
    dataset = data.load_dataset(config.dataset.name, args.data)
    name = file.preprocess_name or config.preprocess
    fitted = setup.preprocessing_of(file, config, dataset, name)
    key = jax.random.key(1)
    rows = data.balanced_draw(dataset.train_labels, args.targets, dataset.num_classes, key)
    return preprocess.apply(fitted, dataset.train_images[rows]), dataset.train_labels[rows]


class Problem:
    """The loss of a set on targets, by the exact kernel and by estimates of it.

    Args:
        config: of RFAD.
        x_s, y_s: images (S, H, W, C) and labels (S, classes) of the set.
        x_t, classes: the targets (T, H, W, C), and their classes (T,).
    """

    def __init__(
        self,
        config: ConfigDict,
        x_s: np.ndarray,
        y_s: np.ndarray,
        x_t: np.ndarray,
        classes: np.ndarray,
    ):
        self._config = config
        self._x_s, self._y_s, self._x_t = (jnp.asarray(array) for array in (x_s, y_s, x_t))
        self._y_t = krr.centered_one_hot(classes, y_s.shape[1])

    def exact(self) -> tuple[float, float]:
        """The loss by the exact kernel, and the logarithm of its best factor."""
        kernel: Kernel = jax.jit(setup.make_kernel(self._config, Console()))
        alpha = krr.solve(kernel(self._x_s, self._x_s), self._y_s, self._config.reg)
        predictions = krr.predict(kernel(self._x_t, self._x_s), alpha)
        estimate = rfad.estimate_of(self._config)
        losses = [self._loss(estimate, predictions[None], scale) for scale in _LOG_SCALES]
        best = int(np.argmin(losses))
        return losses[best], float(_LOG_SCALES[best])

    def estimated(
        self, number: int, width: int, draws: int, log_scale: float
    ) -> tuple[float, float]:
        """Mean losses over the draws: of `number` networks, and debiased."""
        config = self._config.copy_and_resolve_references()
        config.rfad.networks, config.rfad.width = number, width
        _, height, side, channels = self._x_s.shape
        net = rfad.network_of(config, (height, side, channels))
        plain = rfad.estimate_of(config)
        estimates = plain, dataclasses.replace(plain, debias=True)
        found = []
        for draw in range(draws):
            params, other = jax.lax.map(net.init, jax.random.split(jax.random.key(draw), number))
            f_s, f_t = (
                feature_kernel.of_networks(net.features, params, other, x)
                for x in (self._x_s, self._x_t)
            )
            predictions = (e.predict(f_t, f_s, e.solve(f_s, self._y_s)) for e in estimates)
            each = zip(estimates, predictions, strict=True)
            found.append([self._loss(e, p, log_scale) for e, p in each])
        of_all, debiased = np.mean(found, axis=0)
        return float(of_all), float(debiased)

    def _loss(self, estimate: Estimate, predictions: jax.Array, log_scale: float) -> float:
        return float(jnp.mean(estimate.losses(predictions, self._y_t, jnp.float32(log_scale))))


if __name__ == "__main__":
    with in_one_line():
        main()
