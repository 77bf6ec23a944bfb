"""What makes a process fast: memory of freed tensors is used again, where by default it is asked for anew."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from loligo.nn.precision import hasten
{}
for _ in range(20):  # it settles: what a tensor left, less what aligned it, is at first too small for the next
    torch.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep freed memory")
@pytest.mark.parametrize("call, low, high", [("", 32, 1 << 15), ("hasten()", 0, 31)])
def test_memory_of_a_freed_tensor_costs_page_faults_once(call, low, high):
    """A tensor of 64 MiB has 16,384 pages of 4 KiB, or 32 huge ones."""
    made = subprocess.run([sys.executable, "-c", FAULTS.format(call)], capture_output=True, text=True, check=True)
    assert low <= int(made.stdout) <= high
