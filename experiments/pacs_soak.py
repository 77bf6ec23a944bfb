"""Send radiographs while loligo, Orthanc and the disk fail, and see that each study's results arrive exactly once.

python -m experiments.pacs_soak --out experiments/results/pacs_soak.json

Half of the radiographs go to loligo by C-STORE, half to Orthanc, whose changes loligo follows; a sender repeats what
was not acknowledged, as a modality does. Results go to Orthanc. At even steps loligo is killed with SIGKILL and started
again, Orthanc too, and once the disk of the spool, a small tmpfs, is filled for some seconds (needs root). At the end
the UIDs in Orthanc are compared with those of the same files scored here, without a link; and all that loligo wrote is
searched for what tells of patients; the drift alarm has each study once. The same is done without failures, for the
throughput.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from experiments.pacs_servers import NAME, PATIENT, ROOT, Link, Orthanc, free_port, send, trained, wait, write
from loligo.data.checks import NOT_SCORED
from loligo.detector import Detector
from loligo.pacs import work
from loligo.pacs.config import Config
from loligo.pacs.schema import STUDIES
from loligo.pacs.store import Store

QUIET = 1.0
"""Seconds after which a study is complete."""
AHEAD = 20
"""Radiographs that are sent before the first of them is done."""


def soak(
    folder: Path,
    count: int,
    kills: int,
    orthanc_kills: int = 0,
    fills: int = 0,
    workers: int = 1,
    seconds: float = 1800,
) -> dict[str, Any]:
    """Run one trial in a folder; return what was found. Raises AssertionError where a promise does not hold."""
    folder.mkdir(parents=True, exist_ok=True)
    run, files, port = trained(folder), write(folder / "new", count), free_port()
    expected = _expected(run, files)
    orthanc = Orthanc(folder / "orthanc", port)
    with _disk(folder / "spool", fills > 0):
        options = ["--spool", folder / "spool", "--listen", f"LOLIGO@127.0.0.1:{port}", "--callers", "SENDER"]
        options += ["--source", f"orthanc+{orthanc.url}", "--target", f"orthanc+{orthanc.url}"]
        options += ["--quiet", QUIET, "--keep", 0, "--workers", workers, "--device", "cpu"]
        link = Link(run, folder / "log", *options)
        try:
            found = _trial(folder, files, expected, orthanc, link, port, (kills, orthanc_kills, fills), seconds)
        finally:
            link.end(signal.SIGKILL)
            orthanc.end()
        _search_for_patients(folder / "spool", folder / "log")
    return found


def _trial(
    folder: Path,
    files: list[Path],
    expected: set[str],
    orthanc: Orthanc,
    link: Link,
    port: int,
    failures: tuple[int, int, int],
    seconds: float,
) -> dict[str, Any]:
    store = Store(Config(spool=folder / "spool").database)
    wait(lambda: link.said("worker ready"), 120)
    start, sender = time.time(), Sender(files, orthanc, link, port)
    seen: set[int] = set()
    for at, what in _plan(len(files), *failures):
        wait(lambda at=at: sender.sent >= at, seconds)
        {"loligo": _kill_loligo, "orthanc": _kill_orthanc, "disk": _fill_disk}[what](sender, folder, seen)
    wait(lambda: sender.sent == len(files), seconds)
    wait(lambda: store.counts()["done"] == len(files), seconds, every=0.5)
    took = time.time() - start
    counts = store.counts()
    assert sum(counts.values()) == counts["done"] == len(files), counts
    with store.engine.begin() as connection:
        rows = connection.execute(STUDIES.select()).all()
    latency = np.array([row.finished - row.arrived for row in rows])
    instances = [one["SOPInstanceUID"] for one in orthanc.instances() if one["Modality"] != "CR"]
    assert sorted(instances) == sorted(expected), "results in Orthanc are not those of the same files scored here"
    measured = [number for number, _, _ in store.measured(0)]
    assert measured == [*range(1, len(files) - store.not_scored() + 1)], "the drift alarm has not each study once"
    wait(lambda: not any((folder / "spool" / "studies").iterdir()))
    seen |= descendants(link.process.pid)
    assert link.end() == 0, "SIGTERM does not end it in order"
    wait(lambda: not [pid for pid in seen if _lives(pid)], 30)
    return {
        "studies": len(files),
        "loligo killed": failures[0],
        "orthanc killed": failures[1],
        "disk filled": failures[2],
        "sent again": sender.repeats,
        "studies in the drift alarm": len(measured),
        "results expected": len(expected),
        "results in orthanc": len(instances),
        "seconds": round(took, 1),
        "studies per minute": round(60 * len(files) / took, 1),
        "latency median": round(float(np.median(latency)), 2),
        "latency p99": round(float(np.quantile(latency, 0.99)), 2),
        "quiet": QUIET,
    }


def _expected(run: Path, files: list[Path]) -> set[str]:
    """Return the UIDs of the results of files, a study each, that are scored without a link."""
    detector = Detector.load(run, "cpu")
    make = work.objects(detector, Config())
    pairs = ((detector.predict(path)[0], path) for path in files)
    known = [pair for pair in pairs if not set(NOT_SCORED) & set(pair[0].warnings)]
    return {str(one.SOPInstanceUID) for pair in known for one in make([pair])}


def _plan(count: int, kills: int, orthanc_kills: int, fills: int) -> list[tuple[int, str]]:
    """Return after how many radiographs what fails, in order."""
    names = {"loligo": kills, "orthanc": orthanc_kills, "disk": fills}
    return sorted((round(count * (i + 0.5) / times), name) for name, times in names.items() for i in range(times))


class Sender:
    """Sends all files in a thread of its own, at most `AHEAD` before what is done, so that failures come all along."""

    def __init__(self, files: list[Path], orthanc: Orthanc, link: Link, port: int) -> None:
        self.files, self.orthanc, self.link, self.port = files, orthanc, link, port
        self.sent = self.repeats = 0
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def ahead(self) -> int:
        return self.sent - len(self.link.said("done"))

    def _run(self) -> None:
        for number, path in enumerate(self.files):
            while self.ahead > AHEAD:
                time.sleep(0.05)
            to = ("LOLIGO", self.port) if number % 2 else ("ORTHANC", self.orthanc.dicom)
            while not send(path, *to):
                self.repeats += 1
                time.sleep(0.5)
            self.sent += 1


def _kill_loligo(sender: Sender, folder: Path, seen: set[int]) -> None:
    link = sender.link
    begun = link.said("begins")[-1]["time"]

    def at_work() -> bool:  # else nothing is interrupted
        scored = link.said("scored")
        return bool(scored) and (scored[-1]["time"] > begun or len(scored) >= len(sender.files))

    wait(at_work, 600)
    time.sleep(random.uniform(0, 2))
    seen |= descendants(link.process.pid)
    link.end(signal.SIGKILL)
    link.start()


def _kill_orthanc(sender: Sender, folder: Path, seen: set[int]) -> None:
    sender.orthanc.end(signal.SIGKILL)
    time.sleep(3)
    sender.orthanc.start()


def _fill_disk(sender: Sender, folder: Path, seen: set[int]) -> None:
    wait(lambda: sender.ahead < AHEAD // 2, 600)  # else nothing would come in meanwhile
    path, start = folder / "spool" / "incoming" / "filler", time.monotonic()

    def told() -> bool:
        return bool(sender.link.said("cannot keep an instance; the sender is told so"))

    try:
        with path.open("wb", buffering=0) as stream:
            while (since := time.monotonic() - start) < 10 or (since < 120 and not told()):
                try:
                    stream.write(b"\0" * 4096)  # what is done frees room, which is taken again
                except OSError:
                    time.sleep(0.05)
    finally:
        path.unlink()
    assert told(), "nobody was told that the disk is full"


def descendants(pid: int) -> set[int]:
    """Return the processes that a process started, and those that they did."""
    found, pairs = {pid}, []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pairs.append((int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])))
        except (OSError, ValueError):
            continue
    while more := {child for child, parent in pairs if parent in found} - found:
        found |= more
    return found - {pid}


def _lives(pid: int) -> bool:
    """Tell whether a process of Python runs; a number may be given anew."""
    try:
        return b"python" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _search_for_patients(*places: Path) -> None:
    for place in places:
        for path in [place, *place.rglob("*")]:
            content = str(path).encode() + (path.read_bytes() if path.is_file() else b"")
            assert not [one for one in (NAME, PATIENT, ROOT, "19531224") if one.encode() in content], path


@contextmanager
def _disk(folder: Path, small: bool) -> Iterator[None]:
    """Make a folder that lies on a disk of its own, of 24 MiB, where it shall be filled."""
    folder.mkdir(exist_ok=True)
    if small:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "loligo-soak", folder], check=True)
    try:
        yield
    finally:
        if small:
            subprocess.run(["umount", "-l", folder], check=True)


def main() -> None:
    """Run both trials, print and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--orthanc_kills", type=int, default=2)
    parser.add_argument("--fills", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are ended, and the disk is taken away
    found = {}
    for name, failures in (
        ("with failures", (given.kills, given.orthanc_kills, given.fills)),
        ("without", (0, 0, 0)),
    ):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["LOLIGO_CACHE"] = f"{folder}/cache"
            os.environ["LOLIGO_PATIENT_KEY"] = f"{folder}/patients.key"
            found[name] = soak(Path(folder) / "trial", given.count, *failures, workers=given.workers)
        print(name, json.dumps(found[name], indent=1), flush=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
