"""RFAD: KIP with the NNGP kernel estimated from the features of random networks.

Loo, Hasani, Amini, Rus, *Efficient Dataset Distillation using Random Feature Approximation*
(NeurIPS 2022, arXiv 2210.12067). Fresh networks are drawn for every step. A step for 500 learned
images costs 3.8 times as much as for ten; the exact kernel's cost grows with their number.
Constants that the paper leaves open are those of the published code, yolky/RFAD.

Shapes: S support images, T targets, C classes, N networks, F features of each.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kip_flax import architectures, krr
from kip_flax.algorithms import _averaged, base, kip
from kip_flax.algorithms._averaged import AveragedState
from kip_flax.algorithms.interface import Facts, Problem, Step, Support
from kip_flax.krr import feature_kernel
from kip_flax.runtime import batching, sharding
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.fields import Section
from kip_flax.runtime.precision import product

if TYPE_CHECKING:
    from kip_flax.networks.build import Functions

_BIBTEX = """@inproceedings{loo2022efficient,
  title     = {Efficient Dataset Distillation using Random Feature Approximation},
  author    = {Loo, Noel and Hasani, Ramin and Amini, Alexander and Rus, Daniela},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2022},
  note      = {arXiv:2210.12067}
}"""


def _check(fields: Mapping[str, Any]) -> None:
    _averaged.check_average("rfad.average", fields["rfad.average"])
    if fields["rfad.debias"] and fields["rfad.networks"] % 2:
        number = fields["rfad.networks"]
        raise UserError(
            f"rfad.networks is {number} and rfad.debias halves them: take {number + 1}, or "
            "rfad.debias=False."
        )


SECTION = Section(
    {
        "rfad.networks": int,
        "rfad.width": int,
        "rfad.loss": str,
        "rfad.learning_rate": float,
        "rfad.transform_rate": float,
        "rfad.platt_rate": float,
        "rfad.schedule": str,
        "rfad.average": float,
        "rfad.debias": bool,
    },
    choices={
        "rfad.loss": ("mse", "platt"),
        "rfad.schedule": base.SCHEDULES,
    },
    minima={"rfad.networks": 1, "rfad.width": 1, "rfad.transform_rate": 0},
    above_zero=("rfad.learning_rate", "rfad.platt_rate"),
    check=_check,
)


def _published_recipe(images_per_class: int) -> str:
    return (
        f"{images_per_class} per class: 5,120 targets and 8 networks of width 256 a step, until "
        f"the validation loss has not fallen for 1,000 steps"
    )


FACTS = Facts(
    title="RFAD",
    spelled_out="Random Feature Approximation for Dataset Distillation (RFAD)",
    for_networks=True,
    tag="kernel-ridge-regression",
    bibtex=_BIBTEX,
    sections=("rfad",),
    if_not_finite="lower rfad.learning_rate or raise reg",
    published_recipe=_published_recipe,
)

check_data = kip.check_data


def length_decides(fields: Mapping[str, Any]) -> bool:
    """Whether steps depend on `num_steps`."""
    return fields.get("rfad.schedule", "constant") != "constant"


_CHUNK = 512  # Targets whose features, from all networks, are in memory at once.
# Features for each image that the halves need: with 20 long runs hold, with 4 the loss falls
# without bound, as images learn to spoil the kernels of the halves.
_LEAST_FEATURES = 10

Metrics = dict[str, jax.Array]
Params = dict[str, jax.Array]
Networks = tuple[Any, Any]  # Parameters and other state of N networks, stacked.


class RfadState(AveragedState):
    """The learned support, the other learned parameters, and the optimiser.

    Attributes:
        params: 'images' (S, H, W, C) before the transform; and, where they are learned, 'labels'
            (S, C), 'transform' (d, d) of the d numbers of an image, and 'log_scale' (), the
            logarithm of the predictions' factor (Platt).
    """

    @property
    def support(self) -> Support:
        """Support images (S, H, W, C), transformed, and labels (S, C)."""
        return transformed(self.average or self.params), super().support[1]


@dataclass(frozen=True)
class Estimate:
    """The estimated kernel and the loss.

    Attributes:
        networks: random networks per step.
        w_std, b_std: standard deviations of weights and biases, in the kernel's readout too.
        reg: ridge, as in `krr.solve`.
        platt: whether the loss is the cross-entropy of scaled predictions, not the squared error.
        debias: whether the loss is extrapolated to infinitely many networks (see `shares`).
    """

    networks: int
    w_std: float
    b_std: float
    reg: float
    platt: bool
    debias: bool = False

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares of G losses in the whole loss: of all networks, then of each half of them.

        The noise of N networks adds about c / N to the expected loss. So twice the loss of all less
        the mean loss of their halves is, to first order, that of the exact kernel (the jackknife:
        Quenouille, Biometrika 1956).
        """
        return (2.0, -0.5, -0.5) if self.debias else (1.0,)

    def kernels(self, f1: jax.Array, f2: jax.Array) -> list[jax.Array]:
        """The G kernels (n1, n2) of features (N, n1, F) and (N, n2, F)."""
        if not self.debias:
            return [self._kernel(f1, f2)]
        half = self.networks // 2
        first, second = (self._kernel(f1[i : i + half], f2[i : i + half]) for i in (0, half))
        return [(first + second) / 2, first, second]

    def solve(self, f_s: jax.Array, y_s: jax.Array) -> jax.Array:
        """The KRR coefficients alpha (G, S, C) of features (N, S, F) and labels (S, C)."""
        return jnp.stack([krr.solve(k, y_s, self.reg) for k in self.kernels(f_s, f_s)])

    def predict(self, f_t: jax.Array, f_s: jax.Array, alpha: jax.Array) -> jax.Array:
        """Predictions (G, T, C) from features (N, T, F) and (N, S, F), and alpha (G, S, C)."""
        each = zip(self.kernels(f_t, f_s), alpha, strict=True)
        return jnp.stack([krr.predict(k, own) for k, own in each])

    def losses(self, predictions: jax.Array, y: jax.Array, log_scale: jax.Array) -> jax.Array:
        """The losses (T,) of predictions (G, T, C) for labels (T, C); their mean is the loss."""
        shares = jnp.array(self.shares, jnp.float32)
        if not self.platt:
            return product(shares, jnp.mean(optax.l2_loss(predictions - y), axis=2))
        logits, classes = jnp.exp(log_scale) * predictions, jnp.argmax(y, axis=1)
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits, jnp.broadcast_to(classes, logits.shape[:2])
        )
        return product(shares, losses)

    def _kernel(self, f1: jax.Array, f2: jax.Array) -> jax.Array:
        return feature_kernel.nngp(f1, f2, self.w_std, self.b_std)


def transformed(params: Params) -> jax.Array:
    """The images (S, H, W, C), multiplied by the transform if there is one."""
    images = params["images"]
    if "transform" not in params:
        return images
    rows = images.reshape(len(images), -1)
    return product(rows, params["transform"]).reshape(images.shape)


def init(config: ConfigDict, images: jax.Array, labels: jax.Array) -> RfadState:
    """State before the first step: support images (S, H, W, C) and labels (S, C)."""
    images, labels = (jnp.asarray(array, jnp.float32) for array in (images, labels))
    params = {"images": images}
    if config.support.learn_labels:
        params["labels"] = jnp.array(labels)
    if config.rfad.transform_rate:
        params["transform"] = jnp.eye(math.prod(images.shape[1:]), dtype=jnp.float32)
    if config.rfad.loss == "platt":
        params["log_scale"] = jnp.zeros((), jnp.float32)
    return RfadState(**_averaged.fields_of(params, labels, _optimizer(), config.rfad.average))


def network_of(config: ConfigDict, shape: tuple[int, int, int]) -> Functions:
    """The networks that a step draws, for images of `shape`; nothing reads their one output."""
    from kip_flax.networks import build  # Flax's modules take a second to load.

    spec = architectures.build(config.kernel.architecture, config.kernel.depth)
    weights = build.Weights(config.kernel.w_std, config.kernel.b_std)
    width = config.rfad.width
    return build.functions(
        functools.partial(build.make_network, spec, shape, 1, width=width, weights=weights)
    )


def estimate_of(config: ConfigDict) -> Estimate:
    """The estimated kernel and the loss that `config` describes."""
    options, kernel = config.rfad, config.kernel
    return Estimate(
        networks=options.networks,
        w_std=kernel.w_std,
        b_std=kernel.b_std,
        reg=config.reg,
        platt=options.loss == "platt",
        debias=options.debias,
    )


def make_step(problem: Problem) -> Step:
    """One step on a freshly drawn batch, balanced over the classes, with fresh networks."""
    config, options = problem.config, problem.config.rfad
    key_targets, key_networks = jax.random.split(problem.key)
    shape = problem.targets.images.shape[1:]
    net, estimate = network_of(config, shape), estimate_of(config)
    if estimate.debias:
        _check_features(net, shape, options.networks, config.support.size)
    heights = {
        "images": options.learning_rate,
        "labels": options.learning_rate,
        "transform": options.transform_rate,
        "log_scale": options.platt_rate,
    }
    rates = {
        name: base.rate_schedule(height, options.schedule, config.num_steps)
        for name, height in heights.items()
    }
    update = make_update(net, estimate, rates, problem.mesh, key_networks, options.average)
    return kip.on_batches(dataclasses.replace(problem, key=key_targets), update)


def _check_features(net: Functions, shape: tuple[int, ...], networks: int, size: int) -> None:
    """Raises UserError if half of the networks have too few features for `size` images."""
    from kip_flax.networks import build

    features = networks // 2 * build.feature_count(net, shape)
    least = _LEAST_FEATURES * size
    if features < least:
        raise UserError(
            f"half of the networks have {features} features, too few for rfad.debias with {size} "
            f"images: take at least {least} (raise rfad.networks or rfad.width), or "
            f"rfad.debias=False."
        )


def make_update(
    net: Functions,
    estimate: Estimate,
    rates: dict[str, optax.Schedule],
    mesh: Mesh,
    key: jax.Array,
    average: float = 0.0,
) -> kip.Update:
    """`update(state, x_t, y_t, weights) -> (state, metrics)`, not compiled.

    Args:
        net: the network whose features estimate the kernel.
        estimate: the kernel and the loss.
        rates: learning rates of `RfadState.params` by step, by name.
        mesh: its axis 'data' shards the targets, and the work on the support's features.
        key: random key of the networks, which follow from it and `state.step`.
        average: decay of the mean of the last sets, if the state has one.

    The update takes targets x_t (T, H, W, C), their labels y_t (T, C) and weights (T,), 0 where a
    target is padding, all sharded over 'data'. Its metrics are the loss, accuracy and gradient norm
    before the update.
    """
    tx = _optimizer()

    def local(
        state: RfadState, x_t: jax.Array, y_t: jax.Array, weights: jax.Array
    ) -> tuple[RfadState, Metrics]:
        keys = jax.random.split(jax.random.fold_in(key, state.step), estimate.networks)
        networks = jax.lax.map(net.init, keys)
        grads, metrics = _gradient(net, estimate, networks, state, (x_t, y_t, weights))
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        updates = {name: rates[name](state.step) * update for name, update in updates.items()}
        metrics["grad_norm"] = optax.tree.norm(grads)
        return state.stepped(updates, opt_state, average), metrics

    return base.over_targets(local, mesh)


def _optimizer() -> optax.GradientTransformation:
    """AdaBelief (Zhuang et al., NeurIPS 2020) at rate 1; `rates` scale its steps."""
    return optax.adabelief(1.0, eps=1e-16, eps_root=1e-16)


def _gradient(
    net: Functions,
    estimate: Estimate,
    networks: Networks,
    state: RfadState,
    batch: tuple[jax.Array, ...],
) -> tuple[Params, Metrics]:
    """The gradient in `state.params` of the loss on all devices' targets; loss and accuracy.

    No graph spans the networks: the loss of each chunk of targets gives gradients in the support's
    features and in alpha, and their sums are pulled back to the images.
    """
    images, to_params = jax.vjp(transformed, state.params)
    own_rows = sharding.own_share(images)
    f_own = feature_kernel.of_networks(net.features, *networks, own_rows)
    f_s = jax.lax.all_gather(f_own, "data", axis=1, tiled=True)[:, : len(images)]
    y_s = state.params.get("labels", state.labels)
    alpha, to_features_and_labels = jax.vjp(estimate.solve, f_s, y_s)
    log_scale = state.params.get("log_scale", jnp.zeros((), jnp.float32))
    loss = functools.partial(_sums, estimate, jax.lax.psum(jnp.sum(batch[2]), "data"))

    def of_chunk(total: Any, chunk: tuple[jax.Array, ...]) -> tuple[Any, None]:
        x, *rest = chunk
        f_t = feature_kernel.of_networks(net.features, *networks, x)
        found = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(f_s, alpha, log_scale, f_t, *rest)
        return jax.tree.map(jnp.add, total, found), None

    size = math.ceil(len(batch[0]) / math.ceil(len(batch[0]) / _CHUNK))
    scalar = jnp.zeros((), jnp.float32)
    zeros = (scalar, scalar), jax.tree.map(jnp.zeros_like, (f_s, alpha, log_scale))
    total, _ = jax.lax.scan(of_chunk, zeros, batching.split_rows(batch, size))
    (value, right), (d_features, d_alpha, d_scale) = jax.lax.psum(total, "data")
    d_solved, d_labels = to_features_and_labels(d_alpha)
    d_own = sharding.own_share((d_features + d_solved).swapaxes(0, 1)).swapaxes(0, 1)
    d_images = feature_kernel.image_gradients(net.features, networks, own_rows, d_own)
    d_images = jax.lax.all_gather(d_images, "data", tiled=True)[: len(images)]
    grads = to_params(d_images)[0] | {"labels": d_labels, "log_scale": d_scale}
    return {name: grads[name] for name in state.params}, {"loss": value, "accuracy": right}


def _sums(
    estimate: Estimate,
    count: jax.Array,
    f_s: jax.Array,
    alpha: jax.Array,
    log_scale: jax.Array,
    f_t: jax.Array,
    y: jax.Array,
    weights: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The contribution of these targets to the loss and the accuracy of `count` targets."""
    predictions = estimate.predict(f_t, f_s, alpha)
    right = jnp.argmax(predictions[0], axis=1) == jnp.argmax(y, axis=1)
    losses = estimate.losses(predictions, y, log_scale)
    right = right.astype(jnp.float32)
    return product(weights, losses) / count, product(weights, right) / count
