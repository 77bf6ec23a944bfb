"""DICOM files that are broken or hostile are answered, and those of pydicom's wheel decoded as by other decoders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pydicom
import pytest

from experiments import dicom_fuzz, dicom_table

WHEEL = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="memory is measured on POSIX alone")
def test_fuzzed_files_are_read_or_refused_in_time_and_memory() -> None:
    pytest.importorskip("openjpeg", reason="pylibjpeg-openjpeg is not installed")
    ends, slowest, memory = dicom_fuzz.run(150, seed=7)
    assert set(ends) == {"read", "refused"} and sum(ends.values()) == 150
    assert min(ends.values()) > 10  # some changes leave a whole image
    assert slowest < dicom_fuzz.SLOWEST and memory < dicom_fuzz.MEMORY


@pytest.mark.skipif(shutil.which("dcmdjpeg") is None, reason="dcmtk is not installed")
def test_the_files_of_pydicoms_wheel_are_equal_to_a_second_decoder_or_refused() -> None:
    pytest.importorskip("gdcm", reason="python-gdcm is not installed")
    rows = [dicom_table.compare(path) for path in dicom_table.files([WHEEL])]
    assert not [row for row in rows if "different" in row.result]
    assert sum(row.result == "equal" for row in rows) >= 40
    assert sum("(as a CR: equal)" in row.result for row in rows) >= 6
    assert all(row.result.startswith(("equal", "refused: ")) for row in rows)
