"""Costs from the text of a program that the TPU's compiler made, by hand."""

import pytest

from benchmarks import tpu_program

PROGRAM = """HloModule jit_kernel, is_scheduled=true

%fused (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %double = f32[8,128]{1,0:T(8,128)} add(%p, %p)
}

%body (state: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %state = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %outside = f32[8,128]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %own = f32[8,128]{1,0:T(8,128)S(1)} fusion(%outside), calls=%fused, x={"estimated_cycles":"30"}
  %again = bf16[8,128]{1,0:T(8,128)} fusion(%own), calls=%fused, x={"estimated_cycles":"12"}
  ROOT %both = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%state, %own)
}

%condition (state: (s32[], f32[8,128])) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  %state.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %count = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%count, %limit), direction=LT
}

ENTRY %main (x: f32[8,128]) -> f32[8,128] {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0)
  %zero = s32[]{:T(128)} constant(0)
  %start = (s32[]{:T(128)}, /*index=1*/f32[8,128]{1,0:T(8,128)}) tuple(%zero, %x)
  %loop = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body
  %out = f32[8,128]{1,0:T(8,128)} get-tuple-element(%loop), index=1
  ROOT %last = f32[8,128]{1,0:T(8,128)S(1)} add(%out, %out), x={"estimated_cycles":"7"}
}
"""
FLOATS = 4 * 8 * 128


def test_a_loop_counts_as_often_as_it_runs_and_the_core_s_memory_is_free():
    """One fusion reads 8 x 128 floats from outside, one writes as many of half the width."""
    cost = tpu_program.program_cost(PROGRAM)
    assert cost.cycles == 5 * (30 + 12) + 7
    assert cost.bytes == 5 * (FLOATS + FLOATS / 2) + 2 * FLOATS


def test_a_copy_names_both_its_ends():
    copy = (
        "  %copy = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) "
        "copy-start(%x)\n  %out = "
    )
    text = PROGRAM.replace("  %out = ", copy)
    cost = tpu_program.program_cost(text)
    assert cost.bytes == tpu_program.program_cost(PROGRAM).bytes + FLOATS


@pytest.mark.parametrize("change", [("direction=LT", "direction=GT"), ("constant(5)", "copy(%c)")])
def test_a_loop_of_unknown_length_is_an_error(change):
    with pytest.raises(ValueError, match="a loop whose length is not in the program: loop"):
        tpu_program.program_cost(PROGRAM.replace(*change))
