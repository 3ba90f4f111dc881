"""Freed memory that is kept costs no new pages; seen in a process of its own, as it stays so."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from tfn_platform.heap import keep_freed_memory

def faults_of_ten() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        arrays = [np.ones(size << 20, np.uint8) for size in (20, 24, 28, 30)]
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults_of_ten()
if sys.argv[1] == "keep":
    keep_freed_memory()
faults_of_ten()
print(faults_of_ten())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_arrays_of_one_size_after_the_other_take_no_new_pages() -> None:
    def run(how: str) -> int:
        command = [sys.executable, "-c", PROGRAM, how]
        return int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    assert run("keep") < 100 < 1000 < run("leave")
