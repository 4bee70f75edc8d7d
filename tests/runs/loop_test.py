"""What stops the loop; what it does is in `resume_test`, and in the tests of `modes.train`."""

import jax.numpy as jnp
import numpy as np
import pytest
from whole_runs import artefacts, assert_same, small

from kip_flax.algorithms import kip
from kip_flax.modes.train import mode as train
from kip_flax.runs import checkpoint, evaluate, setup
from kip_flax.runtime.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_kernels")


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    config = small(optimizer__name="sgd", optimizer__learning_rate=1e30)
    with pytest.raises(UserError, match="not finite") as caught:
        train.train_and_evaluate(config, str(tmp_path))
    assert "after step 0 and by step 2" in str(caught.value)
    assert "checkpoint of step 0 is kept" in str(caught.value)
    with checkpoint.open_manager(str(tmp_path), 3) as manager:
        restored = checkpoint.restore(manager, setup.state_template(config, (8, 8, 1), 10, 1438))
    assert restored.step == 0
    assert np.isfinite(restored.state.support[0]).all()


def test_an_error_in_an_evaluation_loses_no_step(tmp_path, monkeypatch):
    """Checkpoints are due every four steps, and the run is evaluated at the fifth."""
    on_test_images = evaluate.on_test_images

    def failing_at_the_second(*arguments):
        measure, calls = on_test_images(*arguments), []

        def measured(*support):
            calls.append(support)
            if len(calls) == 2:
                raise ZeroDivisionError
            return measure(*support)

        return measured

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "on_test_images", failing_at_the_second)
        with pytest.raises(ZeroDivisionError):
            train.train_and_evaluate(small(), str(tmp_path / "parts"))
    with checkpoint.open_manager(str(tmp_path / "parts"), 3) as manager:
        assert manager.latest_step() == 5
    parts = train.train_and_evaluate(small(), str(tmp_path / "parts"))
    assert_same(parts, train.train_and_evaluate(small(), str(tmp_path / "whole")))
    assert artefacts(tmp_path / "parts") == artefacts(tmp_path / "whole")


def test_a_step_that_changes_a_type_is_named_at_once(tmp_path, monkeypatch):
    make_step = kip.make_step

    def wider(problem):
        step = make_step(problem)

        def widened(state, number):
            state, measured = step(state, number)
            params = state.params | {"labels": state.params["labels"].astype(jnp.float64)}
            return state.replace(params=params), measured

        return widened

    monkeypatch.setattr(kip, "make_step", wider)
    with pytest.raises(UserError, match=r"turns state.*'labels'.* from float32\(10, 10\) into fl"):
        train.train_and_evaluate(small(), str(tmp_path))
