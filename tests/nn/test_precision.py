"""What a processor can do is found out by doing it; what makes a process fast is done when it is asked for."""

import platform
import subprocess
import sys

import pytest
import torch

from loligo.nn import precision

FAULTS = """
import resource, torch
from loligo.nn.precision import accelerate
import loligo.detector
{}
for _ in range(20):  # it settles: what a tensor left, less what aligned it, is at first too small for the next
    torch.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep freed memory")
@pytest.mark.parametrize("call, low, high", [("", 32, 1 << 15), ("accelerate()", 0, 31)])
def test_memory_of_a_freed_tensor_costs_page_faults_once(call: str, low: int, high: int) -> None:
    """A tensor of 64 MiB has 16,384 pages of 4 KiB, or 32 huge ones."""
    made = subprocess.run([sys.executable, "-c", FAULTS.format(call)], capture_output=True, text=True, check=True)
    assert low <= int(made.stdout) <= high


def test_what_can_be_packed_is_found_by_doing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> torch.Tensor:
        raise RuntimeError(
            "mkldnn_reorder_conv2d_weight: bf16 path needs the cpu support avx512bw, avx512vl and avx512dq"
        )

    precision.can_pack.cache_clear()
    before = precision.can_pack(torch.float32)
    assert before == torch.backends.mkldnn.is_available()
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_convolution_weight", refuse)
    precision.can_pack.cache_clear()
    assert not precision.can_pack(torch.bfloat16)
    precision.can_pack.cache_clear()


def test_without_onednn_nothing_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    precision.can_pack.cache_clear()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not precision.can_pack(torch.float32)
    precision.can_pack.cache_clear()


def test_auto_is_bf16_only_where_it_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for native, expected in ((True, "bf16"), (False, "float32")):
        monkeypatch.setattr(precision, "has_bf16", lambda native=native: native)
        assert precision.resolve("auto", cpu) == expected
        assert precision.resolve("float32", cpu) == "float32"
        assert precision.resolve("bf16", cpu) == "bf16"


def test_emulated_bf16_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: False)
    precision._warn_of_emulation.cache_clear()
    assert precision.dtype_of("bf16", torch.device("cpu")) is torch.bfloat16
    assert "does not compute in bfloat16" in caplog.text


def test_a_device_is_named_among_those_there_are() -> None:
    assert precision.pick_device("cpu").type == "cpu"
    assert precision.pick_device("auto").type in ("cpu", "cuda", "mps", "xpu")
    for name in ("gpu0", "tpu"):
        with pytest.raises(ValueError, match=rf"device is '{name}'; this machine has cpu"):
            precision.pick_device(name)
