"""The link as a process of its own, killed while radiographs arrive; experiments/pacs_soak.py is the long trial."""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from pathlib import Path

import pytest
from experiments.pacs_servers import Link, Orthanc, radiograph, wait
from experiments.pacs_soak import descendants, soak
from pacs_fixtures import orthanc, port, run

from experiments import pacs_servers as servers


def test_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    if absent := servers.missing():
        pytest.skip(f"{absent} not installed: apt-get install orthanc orthanc-dicomweb dcmtk")
    start = time.process_time()
    found = soak(tmp_path / "trial", count=10, kills=2, seconds=300)
    assert found["results in orthanc"] == found["results expected"] >= 10
    assert time.process_time() - start < 60


def test_the_process_looks_after_its_workers_and_tells_numbers(tmp_path: Path, run: Path, orthanc: Orthanc) -> None:
    port, told = servers.free_port(), servers.free_port()
    options = ["--spool", tmp_path / "spool", "--listen", f"LOLIGO@127.0.0.1:{port}", "--quiet", 0.5, "--metrics", told]
    link = Link(run, tmp_path / "log", *options, "--target", f"orthanc+{orthanc.url}", "--device", "cpu")
    try:
        (ready,) = wait(lambda: link.said("worker ready"), 120)
        with pytest.raises(RuntimeError, match="is used by another loligo pacs serve"):
            Link(run, tmp_path / "second", *options, "--target", f"orthanc+{orthanc.url}")
        os.kill(ready["pid"], signal.SIGKILL)
        assert servers.send(radiograph(tmp_path / "a", "8.1"), "LOLIGO", port)
        wait(lambda: link.said("done"), 120)
        assert [line["status"] for line in link.said("a worker ended")] == [-9]
        page = urllib.request.urlopen(f"http://127.0.0.1:{told}/metrics").read().decode()
        assert 'loligo_studies{state="done"} 1.0' in page and "loligo_studies_scored 1.0" in page
        assert 'loligo_study_seconds_bucket{le="+Inf"} 1.0' in page
        processes = descendants(link.process.pid)
        assert processes and link.end() == 0
        wait(lambda: not [pid for pid in processes if Path(f"/proc/{pid}").exists()], 30)
        assert link.said("ended")
    finally:
        link.end(signal.SIGKILL)
