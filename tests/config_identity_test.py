"""What may change between the parts of a run, and what makes it another experiment."""

import pytest
from made_configs import changed

from configs import default
from kip_flax import config as config_lib
from kip_flax.runtime.errors import UserError


def test_another_experiment_is_refused_with_field_and_values():
    saved = changed(seed=3).to_dict()
    with pytest.raises(
        UserError, match=r"/runs/a holds another experiment: seed was 3 and is now 4"
    ):
        config_lib.check_same_experiment(saved, changed(seed=4), "/runs/a")


def test_a_field_that_an_old_run_did_not_have_is_named_with_the_value_that_it_implied():
    saved = changed(algorithm="kip_newton").to_dict()
    del saved["newton"]["growth"]
    same = changed(algorithm="kip_newton")
    config_lib.check_same_experiment(saved, same, "/runs/a")
    other = changed(algorithm="kip_newton", newton__growth=4)
    with pytest.raises(UserError, match=r"newton.growth was 1 and is now 4"):
        config_lib.check_same_experiment(saved, other, "/runs/a")
    tables = {"seed": 0}, {"seed": 0, "dataset.classes": [], "newton.growth": 1}
    config_lib.check_same(*tables, "transfer", "/runs/a")
    with pytest.raises(UserError, match="another transfer: it does not say version, as older"):
        config_lib.check_same({"seed": 0}, {"seed": 0, "version": 2}, "transfer", "/runs/a")


@pytest.mark.parametrize(
    "free",
    [
        {"num_steps": 7},
        {"mesh__data": 2},
        {"checkpoint__keep": 9},
        {"eval__steps": (5,)},
        {"eval__networks": ("mlp",)},
        {"log__every_steps": 3},
        {"kernel__implementation": "xla"},
        {"dataset__data_dir": "elsewhere"},
        {"transfer__width": 64},
    ],
)
def test_what_computes_the_same_may_change(free):
    config_lib.check_same_experiment(default.get_config().to_dict(), changed(**free), "runs/a")


@pytest.mark.parametrize("algorithm", ["kip_solve", "kip_newton"])
@pytest.mark.parametrize(
    ("field", "now"), [("eval__label_targets", 0), ("eval__label_loss", "cross_entropy")]
)
def test_what_decides_solved_labels_may_not_change(algorithm, field, now):
    saved = changed(algorithm=algorithm).to_dict()
    other = changed(algorithm=algorithm, **{field: now})
    with pytest.raises(UserError, match=f"{field.replace('__', '.')} was .* and is now {now!r}"):
        config_lib.check_same_experiment(saved, other, "runs/a")
    learned = changed(algorithm="kip").to_dict()
    config_lib.check_same_experiment(learned, changed(algorithm="kip", **{field: now}), "runs/a")
    if algorithm == "kip_newton":
        fixed = {"algorithm": algorithm, "support__learn_labels": False}
        other = changed(**fixed, **{field: now})
        config_lib.check_same_experiment(changed(**fixed).to_dict(), other, "runs/a")


@pytest.mark.parametrize("algorithm", ["ls", "ls_cross_entropy"])
def test_label_solve_goes_on_whatever_the_optimiser_is(algorithm):
    saved = changed(algorithm=algorithm).to_dict()
    other = {"optimizer__learning_rate": 0.5, "optimizer__schedule": "cosine", "num_steps": 3}
    config_lib.check_same_experiment(saved, changed(algorithm=algorithm, **other), "runs/a")


def test_a_cosine_schedule_fixes_the_number_of_steps():
    saved = changed(optimizer__schedule="cosine", num_steps=10)
    with pytest.raises(UserError, match="num_steps was 10 and is now 20"):
        config_lib.check_same_experiment(
            saved.to_dict(), changed(optimizer__schedule="cosine", num_steps=20), "runs/a"
        )
