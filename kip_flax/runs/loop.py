"""The loop of a run: steps, and what is due at a step before the next one.

Everything random follows from the seed and the number of the step. Every artefact is written before
the checkpoint that implies it, and written again it comes out the same. So a run that was stopped
at any moment goes on from its last checkpoint to the same bits as one that never was.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kip_flax.algorithms.base import State
from kip_flax.networks import figures as network_figures
from kip_flax.runs.checkpoint import Saver
from kip_flax.runs.evaluate import Evaluate
from kip_flax.runs.networks import NetworkEvaluate
from kip_flax.runs.record import Recorder
from kip_flax.runs.setup import Distillation
from kip_flax.runtime import metrics, multihost, signals
from kip_flax.runtime.console import Console, clock, count, duration
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.waiting import Stopped, Watch

_WORTH_TELLING = 60  # Seconds: shorter runs do not tell when they will end.


@dataclass(frozen=True, eq=False)
class Training:
    """One run under way: all processes of it call the methods alike.

    Attributes:
        distillation: the steps.
        measure: test accuracy and error of a support.
        recorder: writes what is measured.
        saver: of the checkpoints.
        console: what it says goes there.
        log_every: steps from one line of progress to the next.
        network_evaluate: what trains networks on a support, if any are.
    """

    distillation: Distillation
    measure: Evaluate
    recorder: Recorder
    saver: Saver
    console: Console
    log_every: int
    network_evaluate: NetworkEvaluate | None = None

    def run(self, state: State, step: int) -> State:
        """Goes from `step` to the end or a signal; what is due at a step is done before the next.

        What is due at `step` itself is done first, if an earlier part of the run did not do it.

        Raises:
            UserError: the loss is not finite, or a file cannot be written.
        """
        distillation, total = self.distillation, self.distillation.total
        begun = checked = step
        last, figures = step == total, dict[str, float]()
        with signals.stop_signals() as signalled:
            stopping = multihost.agreed(signalled)
            settled = self._settle(state, step, figures, self.saver.newest is None, signalled)
            stopwatch = metrics.Stopwatch(step, total, distillation.pairs)
            while settled and not last:
                step += 1
                state, measured = distillation.step(state, step)
                if step == begun + 1:  # It was compiled first, which the figures are not to show.
                    jax.block_until_ready(state)
                    stopwatch.look(step)
                last = step == total or stopping()
                log, save = step % self.log_every == 0, self.saver.is_due(step)
                if not (last or log or save or step in distillation.marks):
                    continue
                self._check_finite(state, checked, step)
                checked = step
                last = last or stopping()  # The step has run only now; another may take minutes.
                if log or last:
                    first, figures = not figures, stopwatch.look(step)
                    if first:
                        self._tell_end(figures["eta_s"])
                    self._tell(step, measured, figures)
                with stopwatch.paused():
                    settled = self._settle(state, step, figures, save or last, signalled)
        self.saver.wait()
        if not settled or step < total:
            self._stop(step, figures)
        return state

    def _settle(
        self,
        state: State,
        step: int,
        figures: Mapping[str, float],
        save: bool,
        signalled: Callable[[], bool],
    ) -> bool:
        """Does what is due at `step`; False where a signal stopped its evaluation: it is saved."""
        marked = step == 0 or step in self.distillation.marks
        if marked and not self.recorder.has(step):
            try:
                self._evaluate(state, step, signalled)
            except Stopped:
                return False
        if step == self.distillation.total:
            self._finish(figures)
        if save:
            self._save(state, step)
        return True

    def _evaluate(self, state: State, step: int, signalled: Callable[[], bool]) -> None:
        support = self.distillation.support(state)
        measures, rows = self.measure(*support), []
        images, labels = map(np.asarray, support)
        if self.network_evaluate is not None:
            self._save(state, step)  # Networks may take minutes; a stop loses nothing.
            watch = Watch(signalled, self.console)
            last = step == self.distillation.total
            rows = self.network_evaluate.measure(images, labels, last, watch)
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

    def _save(self, state: State, step: int) -> None:
        self.recorder.write_history()
        self.saver.save(step, state)

    def _tell(
        self, step: int, measured: Mapping[str, jax.Array], figures: Mapping[str, float]
    ) -> None:
        scalars = {name: float(value) for name, value in measured.items()}
        self.recorder.progress(step, scalars, figures)
        loss = f"  loss {scalars['loss']:.5f}" if "loss" in scalars else ""
        pairs = [f"{count(figures['pairs_per_s'])} pairs/s"] if self.distillation.pairs else []
        self.console.progress(
            f"step {step}/{self.distillation.total}{loss}",
            f"{figures['step_ms']:.1f} ms/step",
            *pairs,
            f"ETA {duration(figures['eta_s'])}",
        )

    def _tell_end(self, seconds: float) -> None:
        """When the run will be over, where that is worth waiting for."""
        if seconds >= _WORTH_TELLING:
            self.console.say(f"expected to end at {clock(seconds)}, in {duration(seconds)}")

    def _check_finite(self, state: State, before: int, step: int) -> None:
        if not _is_finite(state):
            raise UserError(
                f"the loss is not finite: it went wrong after step {before} and by step {step}; "
                f"lower optimizer.learning_rate or raise reg. The checkpoint of step "
                f"{self.saver.newest} is kept."
            )

    def _finish(self, figures: Mapping[str, float]) -> None:
        recorder, split = self.recorder, self.recorder.split
        result = recorder.end("finished", figures)
        first, last = result["evaluations"][0], result["evaluations"][-1]
        self.console.outcome(
            f"finished in {duration(result['seconds'])}",
            [
                (f"{split} accuracy", _from_to("{:.2%}", first, last, "accuracy")),
                (f"{split} mse", _from_to("{:.5f}", first, last, "mse")),
                *_of_networks(last.get("networks", [])),
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


@jax.jit
def _is_finite(state: State) -> jax.Array:
    """A loss that is not finite leaves a state that is not: its gradient is NaN in every entry."""
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()


def _of_networks(rows: list[network_figures.Row]) -> list[tuple[str, str]]:
    """Lines on what networks reach after the last step."""
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
