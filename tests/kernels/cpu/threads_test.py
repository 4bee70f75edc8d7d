"""How many threads the compiled kernel takes."""

from own_process import output_of

from kip_flax.runtime import hardware


def test_threads_are_the_cores_of_the_process_or_fewer():
    code = "from kip_flax.kernels.cpu import threads; print(threads.count())"
    assert int(output_of(code)) == hardware.usable_cores()
    assert int(output_of(code, NUMBA_NUM_THREADS="1")) == 1
    pinned = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + code
    assert int(output_of(pinned)) == 1
