"""The loop of a run: steps, with evaluations, checkpoints and progress between them.

All randomness follows from the seed and the step number. A checkpoint may come before the
evaluation of its step; a run that goes on makes up for that. Writing artefacts again gives the same
content. So a run that is stopped at any moment resumes from its last checkpoint and gives the same
bits as one that is not.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kip_flax.algorithms.interface import State
from kip_flax.networks import figures as network_figures
from kip_flax.runs.checkpoint import Saver
from kip_flax.runs.deadline import Deadline
from kip_flax.runs.evaluate import Evaluate
from kip_flax.runs.networks import NetworkEvaluate
from kip_flax.runs.pace import Pace
from kip_flax.runs.record import Recorder
from kip_flax.runs.setup import Distillation
from kip_flax.runtime import metrics, multihost, signals
from kip_flax.runtime.console import Console, count, duration
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.waiting import Stopped, Watch


class Due(NamedTuple):
    """What is due at a step besides its evaluation, and what may cut that short.

    Attributes:
        save: whether to save a checkpoint.
        end: whether the run ends here.
        deadline: the run's deadline.
        signalled: () -> whether a signal asked the run to stop.
    """

    save: bool
    end: bool
    deadline: Deadline
    signalled: Callable[[], bool]


@dataclass(frozen=True, eq=False)
class Training:
    """One run in progress; all its processes make the same calls.

    Attributes:
        distillation: the steps.
        measure: computes test accuracy and mse of a support.
        recorder: writes the measurements.
        saver: saves checkpoints.
        console: prints messages and progress.
        log_every: most steps between lines of progress.
        network_evaluate: trains networks on a support and tests them; None: no networks.
        saves_first: whether a set is written after its state, not at the same time. A private set
            must be: computed again with other rounding and the same noise, it would tell more.
        time_limit: hours after which the run ends, summed over its parts; 0: no limit.
        longest_evaluation: seconds of the longest evaluation in earlier parts of the run.
    """

    distillation: Distillation
    measure: Evaluate
    recorder: Recorder
    saver: Saver
    console: Console
    log_every: int
    network_evaluate: NetworkEvaluate | None = None
    saves_first: bool = False
    time_limit: float = 0.0
    longest_evaluation: float = 0.0

    def run(self, state: State, step: int) -> State:
        """Runs from `step` to the end or a signal, and returns the last state.

        It first does what is due at `step` itself, unless an earlier part of the run did. The run
        ends at the last step, or when the time limit leaves no time for another.

        Raises:
            UserError: the loss is not finite, a step changes the type or shape of an array, or a
                file cannot be written.
        """
        distillation, total = self.distillation, self.distillation.total
        begun = last_checked = step
        figures = dict[str, float]()
        deadline = self._deadline()
        stops = ends = step == total or deadline.passed()
        with signals.stop_signals() as signalled:
            due = Due(self.saver.newest is None, ends, deadline, signalled)
            stopping = multihost.agreed(signalled)
            settled = self._settle(state, step, figures, due)
            if due.save:  # A secret of the state, or a length laid out in time, is nowhere else.
                self.saver.wait()
            stopwatch = metrics.Stopwatch(step, total, distillation.pairs, distillation.work)
            marks = {*distillation.eval_steps, total}
            pace = Pace(stopwatch, deadline, self.console, self.log_every, marks)
            kinds = _kinds(state)
            while settled and not stops:
                step += 1
                began = time.perf_counter()
                state, measured = distillation.step(state, step)
                if step <= begun + 2:  # The first may be of another kind (`dp_kip`).
                    _check_kinds(kinds, state)
                pace.stepped(state, step, began)
                ends = step == total or deadline.reached()
                stops = ends or stopping()
                log, save = step % pace.log_every == 0, self.saver.is_due(step)
                if not (stops or log or save or step in distillation.eval_steps):
                    continue
                self._check_finite(state, last_checked, step)
                last_checked = step
                stops = stops or stopping()  # The check has waited for the step.
                if log or stops:
                    figures = pace.look(step)
                    self._report_progress(step, measured, figures)
                with pace.paused():
                    due = due._replace(save=save or stops, end=ends)
                    settled = self._settle(state, step, figures, due)
        self.saver.wait()
        if not (settled and ends):
            self._stop(step, figures)
        return state

    def _deadline(self) -> Deadline:
        at_end = self.network_evaluate.at_end if self.network_evaluate else 1.0
        return Deadline(
            3600 * self.time_limit,
            lambda: self.recorder.seconds,
            at_end=at_end,
            longest=self.longest_evaluation,
        )

    def _settle(self, state: State, step: int, figures: Mapping[str, float], due: Due) -> bool:
        """Does what is due at `step`; False if a signal stopped its evaluation (it is saved)."""
        marked = step == 0 or step in self.distillation.eval_steps or due.end
        if marked and not self._is_evaluated(step, due.end):
            if self.network_evaluate is not None or self.saver.newest is not None:
                # The evaluation may take minutes; a kill then loses nothing.
                self._save(state, step, due.deadline)
            if self.saves_first:
                self.saver.wait()
            try:
                with due.deadline.evaluation():
                    self._evaluate(state, step, due)
            except Stopped:
                return False
        if due.end:
            self._finish(step, figures)
        if due.save:
            self._save(state, step, due.deadline)
        return True

    def _is_evaluated(self, step: int, end: bool) -> bool:
        """Whether nothing is missing: networks are tested on more images at the end of a run."""
        networks = self.network_evaluate
        on = networks.tests_on(end) if networks is not None else ()
        return self.recorder.has(step, on)

    def _evaluate(self, state: State, step: int, due: Due) -> None:
        support = self.distillation.support(state)
        measures, rows = self.measure(*support), []
        images, labels = map(np.asarray, support)
        if self.network_evaluate is not None:
            watch = Watch(due.signalled, self.console)
            rows = self.network_evaluate.measure(images, labels, due.end, watch)
        self.recorder.evaluation(step, (images, labels), measures, rows)
        split, accuracy = self.recorder.split, f"{measures['accuracy']:.2%}"
        by_networks = [
            f"{row['network']} {network_figures.spread(row)}"
            for row in network_figures.watched_rows(rows)
        ]
        on = f" of {network_figures.words(rows[0]['on'])}" if rows else ""
        self.console.mark(
            f"step {step}: {split} accuracy {accuracy}, mse {measures['mse']:.5f}"
            + "".join(f", {one}{on}" for one in by_networks),
            ", ".join([f"{split} {accuracy}", *by_networks]),
        )

    def _save(self, state: State, step: int, deadline: Deadline) -> None:
        self.recorder.write_history()
        self.saver.save(step, state, self.recorder.seconds, deadline.longest)

    def _report_progress(
        self, step: int, measured: Mapping[str, jax.Array], figures: Mapping[str, float]
    ) -> None:
        scalars = {name: float(value) for name, value in measured.items()}
        self.recorder.progress(step, scalars, figures)
        loss = f"  loss {scalars['loss']:.5f}" if "loss" in scalars else ""
        parts = [f"step {step}/{self.distillation.total}{loss}"]
        if figures:
            parts.append(f"{figures['step_ms']:.1f} ms/step")
            if self.distillation.pairs:
                parts.append(f"{count(figures['pairs_per_s'])} pairs/s")
            parts.append(f"ETA {duration(figures['eta_s'])}")
        self.console.progress(*parts)

    def _check_finite(self, state: State, before: int, step: int) -> None:
        if not _is_finite(state):
            raise UserError(
                f"the loss is not finite: it went wrong after step {before} and by step {step}; "
                f"{self.distillation.if_not_finite}. The checkpoint of step {self.saver.newest} is "
                f"kept."
            )

    def _finish(self, step: int, figures: Mapping[str, float]) -> None:
        recorder, split, total = self.recorder, self.recorder.split, self.distillation.total
        early = step < total
        result = recorder.end("finished", figures, self.time_limit if early else None)
        first, last = result["evaluations"][0], result["evaluations"][-1]
        by_limit = f", by time_limit, at step {step} of {total}" if early else ""
        self.console.outcome(
            f"finished in {duration(result['seconds'])}{by_limit}",
            [
                (f"{split} accuracy", _from_to("{:.2%}", first, last, "accuracy")),
                (f"{split} mse", _from_to("{:.5f}", first, last, "mse")),
                *_of_networks(last.get("networks", [])),
                *_of_best(result),
                ("distilled set", str(recorder.exporter.path(last["step"]))),
                ("picture", str(recorder.folder.picture)),
                ("figures", str(recorder.folder.result_file)),
            ],
        )

    def _stop(self, step: int, figures: Mapping[str, float]) -> None:
        self.recorder.end("stopped", figures)
        self.console.outcome(
            f"stopped and saved at step {step}: the same command goes on from there"
        )


def _kinds(state: State) -> dict[str, str]:
    """The type and shape of each leaf of a state, by its place."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {
        jax.tree_util.keystr(path): f"{getattr(leaf, 'dtype', type(leaf).__name__)}{np.shape(leaf)}"
        for path, leaf in leaves
    }


def _check_kinds(before: dict[str, str], state: State) -> None:
    """Raises UserError if a step changed the type or shape of an array: no resume could read it."""
    after = _kinds(state)
    for name in sorted(before.keys() | after.keys()):
        if after.get(name) != before.get(name):
            raise UserError(
                f"a step of the algorithm turns state{name} from {before.get(name)} into "
                f"{after.get(name)}: keep types and shapes, for example by .astype."
            )


@jax.jit
def _is_finite(state: State) -> jax.Array:
    """Whether all arrays are finite: a loss that is not makes gradients or the damping NaN.

    That of BPTT alone may be NaN, where all networks diverge; the state then stays finite.
    """
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()


def _of_best(result: dict[str, Any]) -> list[tuple[str, str]]:
    """A line on the best set, if held-out images choose another one than the last."""
    best = result.get("best")
    if best is None or best["step"] == result["evaluations"][-1]["step"]:
        return []
    by = "" if best["by"] == "kernel" else " by networks"
    return [("best set", f"step {best['step']}, {best['accuracy']:.2%}{by}: {best['set']}")]


def _of_networks(rows: list[network_figures.Row]) -> list[tuple[str, str]]:
    """Lines with the accuracies of networks after the last step."""
    return [
        (
            "by networks",
            network_figures.sentence(row),
        )
        for row in rows
    ]


def _from_to(form: str, first: dict[str, Any], last: dict[str, Any], name: str) -> str:
    before, after = form.format(first[name]), form.format(last[name])
    return f"{before} at step 0, {after} at step {last['step']}"
