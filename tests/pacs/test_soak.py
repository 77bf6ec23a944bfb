"""The link as a process of its own, killed while radiographs arrive; experiments/pacs_soak.py is the long trial."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from experiments.pacs_soak import soak

from experiments import pacs_servers as servers


def test_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    if absent := servers.missing():
        pytest.skip(f"{absent} not installed: apt-get install orthanc orthanc-dicomweb dcmtk")
    start = time.process_time()
    found = soak(tmp_path / "trial", count=10, kills=2, seconds=300)
    assert found["results in orthanc"] == found["results expected"] >= 10
    assert time.process_time() - start < 60
