"""Freed memory that is kept costs no new pages; seen in processes of their own."""

import os
import subprocess
import sys

import pytest

from tfn_platform.heap import KEEP_FREED_MEMORY

PROGRAM = """
import resource, threading
import numpy as np

def use() -> None:
    for _ in range(3):
        arrays = [np.ones(size << 20, np.uint8) for size in (20, 24, 28, 30)]
        del arrays

def use_in_a_thread() -> None:
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()

use_in_a_thread()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use_in_a_thread()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_arrays_of_one_size_after_the_other_take_no_new_pages() -> None:
    """Also not where each call comes in a thread of its own, as those of actors may."""

    def run(environment: dict[str, str]) -> int:
        variables = {**os.environ, **environment}
        command = [sys.executable, "-c", PROGRAM]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=variables).stdout
        return int(printed)

    assert run(KEEP_FREED_MEMORY) < 200 < 2000 < run({})
