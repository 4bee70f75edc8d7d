"""The loop of a run: steps, and what is due at a step before the next one.

Everything random follows from the seed and the number of the step. Every artefact is written before
the checkpoint that implies it, and written again it comes out the same. So a run that was stopped
at any moment goes on from its last checkpoint to the same bits as one that never was.
"""

import os
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from kip_flax.algorithms.base import State, Task
from kip_flax.runs import checkpoint, evaluate, record
from kip_flax.runtime import console, metrics, multihost, signals
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError

_SPEED = ("step_ms", "pairs_per_s")
_WORTH_TELLING = 60  # Seconds: of shorter runs nobody asks when they end.


@dataclass(frozen=True)
class Run:
    """What the loop works with: `measure` gives test accuracy and mse of a support."""

    config: ConfigDict
    task: Task
    measure: evaluate.Evaluate
    manager: ocp.CheckpointManager
    meta: dict[str, Any]
    recorder: record.Recorder
    writer: metrics.Writer
    console: Console


def begin(run: Run) -> State:
    """The first state, evaluated and saved."""
    state = run.task.start()
    _evaluate(run, state, 0)
    if run.task.total == 0:
        _finish(run, {})
    _save(run, state, 0)
    return state


def run_from(run: Run, state: State, step: int) -> State:
    """Goes from `step` to the end or to a signal; what is due at a step is done before the next."""
    config, task = run.config, run.task
    clock = metrics.Stopwatch(step, task.total, task.pairs)
    begun = checked = step
    last, figures = step == task.total, dict[str, float]()
    with signals.stop_signals() as signalled:
        stopping = multihost.agreed(signalled)
        while not last:
            step += 1
            state, measured = task.step(state, step)
            if step == begun + 1:  # It was compiled first, which the figures are not to show.
                jax.block_until_ready(state)
                clock.look(step)
            last = step == task.total or stopping()
            log = step % config.log.every_steps == 0
            save = step % config.checkpoint.every_steps == 0
            if not (last or log or save or step in task.marks):
                continue
            _check_finite(run, state, checked, step)
            checked = step
            last = last or stopping()  # The step has run only now; another one may take minutes.
            if log or last:
                first, figures = not figures, clock.look(step)
                if first:
                    _tell_end(run, figures["eta_s"])
                _tell(run, step, measured, figures)
            with clock.paused():
                if step in task.marks:
                    _evaluate(run, state, step)
                if step == task.total:
                    _finish(run, figures)
                if save or last:
                    _save(run, state, step)
    checkpoint.wait(run.manager)
    if step < task.total:
        with multihost.raise_everywhere():
            run.recorder.result("stopped", **_speed(figures))
        run.console.outcome(
            f"stopped and saved at step {step}: the same command goes on from there"
        )
    return state


def _evaluate(run: Run, state: State, step: int) -> None:
    images, labels = run.task.support(state)
    split = run.recorder.split
    measures = run.measure(images, labels)
    with multihost.raise_everywhere():
        support = np.asarray(images), np.asarray(labels)
        pictures = run.recorder.evaluation(step, *support, measures)
        scalars = {f"{split}_{name}": value for name, value in measures.items()}
        run.writer.write_scalars(step, scalars)
        run.writer.write_images(step, pictures)
    accuracy = f"{measures['accuracy']:.2%}"
    run.console.mark(
        f"step {step}: {split} accuracy {accuracy}, mse {measures['mse']:.5f}",
        f"{split} {accuracy}",
    )


def _save(run: Run, state: State, step: int) -> None:
    with multihost.raise_everywhere():
        run.recorder.write_history()
    checkpoint.save(run.manager, step, state, run.meta)


def _tell(run: Run, step: int, measured: dict[str, jax.Array], figures: dict[str, float]) -> None:
    scalars = {name: float(value) for name, value in measured.items()}
    run.recorder.log(step, scalars | {name: figures[name] for name in _SPEED if name in figures})
    with multihost.raise_everywhere():
        run.writer.write_scalars(step, scalars | figures)
    loss = f"  loss {scalars['loss']:.5f}" if "loss" in scalars else ""
    pairs = [f"{console.count(figures['pairs_per_s'])} pairs/s"] if run.task.pairs else []
    run.console.progress(
        f"step {step}/{run.task.total}{loss}",
        f"{figures['step_ms']:.1f} ms/step",
        *pairs,
        f"ETA {console.duration(figures['eta_s'])}",
    )


def _tell_end(run: Run, seconds: float) -> None:
    """When the run will be over, where that is worth waiting for."""
    if seconds >= _WORTH_TELLING:
        until, left = console.clock(seconds), console.duration(seconds)
        run.console.say(f"expected to end at {until}, in {left}")


def _check_finite(run: Run, state: State, before: int, step: int) -> None:
    if not _is_finite(state):
        kept = run.manager.latest_step()
        raise UserError(
            f"the loss is not finite: it went wrong after step {before} and by step {step}; lower "
            f"optimizer.learning_rate or raise reg. The checkpoint of step {kept} is kept."
        )


@jax.jit
def _is_finite(state: State) -> jax.Array:
    """A loss that is not finite leaves a state that is not: its gradient is NaN in every entry."""
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()


def _finish(run: Run, figures: dict[str, float]) -> None:
    with multihost.raise_everywhere():
        result = run.recorder.result("finished", **_speed(figures))
    first, last = result["evaluations"][0], result["evaluations"][-1]
    workdir, split = run.recorder.workdir, run.recorder.split
    run.console.outcome(
        f"finished in {console.duration(result['seconds'])}",
        [
            (f"{split} accuracy", _from_to("{:.2%}", first, last, "accuracy")),
            (f"{split} mse", _from_to("{:.5f}", first, last, "mse")),
            ("distilled set", run.recorder.distilled_path(last["step"])),
            ("picture", os.path.join(workdir, record.PICTURE)),
            ("figures", os.path.join(workdir, record.RESULT)),
        ],
    )


def _from_to(form: str, first: dict[str, float], last: dict[str, float], name: str) -> str:
    before, after = form.format(first[name]), form.format(last[name])
    return f"{before} at step 0, {after} at step {last['step']}"


def _speed(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(figures[name], 3) for name in _SPEED if figures}
