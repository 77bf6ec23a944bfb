"""Servers for tests and trials of the PACS link: Orthanc, loligo itself, and generated radiographs to send.

All listen on loopback, keep their files in a folder that is named, and are ended by their process ids.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from loligo import api
from loligo.runs.run import Run

ROOT = "1.2.826.0.1.3680043.10.998."
"""Beginning of the UIDs of all radiographs."""
NAME, PATIENT = "PLANTED^NAME", "PLANTEDID"
PROGRAMS = ("Orthanc", "storescu")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def missing() -> str:
    """Say which of the servers are not installed."""
    found = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    return ", ".join(found if PLUGIN.exists() else [*found, PLUGIN.name])


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait(ready: Callable[[], Any], seconds: float = 60.0, every: float = 0.1) -> Any:
    """Return what a function returns as soon as that is true; TimeoutError if it never is."""
    last = time.monotonic() + seconds
    while not (found := ready()):
        if time.monotonic() > last:
            raise TimeoutError(f"{getattr(ready, '__name__', ready)} is not true after {seconds:g} s")
        time.sleep(every)
    return found


class Orthanc:
    """Debian's Orthanc, with DICOMweb."""

    def __init__(self, folder: Path, peer: int = 0) -> None:
        folder.mkdir(parents=True)
        self.folder, self.http, self.dicom = folder, free_port(), free_port()
        options = {
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "HttpPort": self.http,
            "DicomPort": self.dicom,
            "DicomAet": "ORTHANC",
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "OverwriteInstances": False,
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "DicomModalities": {"loligo": ["LOLIGO", "127.0.0.1", peer]} if peer else {},
        }
        (folder / "orthanc.json").write_text(json.dumps(options))
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    def start(self) -> None:
        program = shutil.which("Orthanc", path=f"{os.environ['PATH']}:/usr/sbin") or "Orthanc"
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([program, str(self.folder / "orthanc.json")], stdout=log, stderr=log)
        wait(self._answers)

    def _answers(self) -> bool:
        try:
            return bool(self.get("/system"))
        except OSError:
            return False

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as answer:
            return json.load(answer)

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process:
            self.process.send_signal(number)
            self.process.wait(60)
            self.process = None

    def instances(self) -> list[dict[str, str]]:
        """Return SOP Instance UID, study and class of every instance."""
        found = []
        for one in self.get("/instances"):
            tags = self.get(f"/instances/{one}/simplified-tags")
            found.append({word: tags.get(word, "") for word in ("SOPInstanceUID", "StudyInstanceUID", "Modality")})
        return found


class Link:
    """``loligo pacs serve`` as a process of its own."""

    def __init__(self, run: Path, log: Path, *options: object) -> None:
        self.arguments = [sys.executable, "-m", "loligo", "pacs", "serve", str(run), *map(str, options)]
        self.log, self.process = log, None
        self.start()

    def start(self) -> None:
        """Start, and wait until it says that it has begun."""
        before = len(self.said("begins"))
        with self.log.open("ab") as log:
            self.process: subprocess.Popen[bytes] | None = subprocess.Popen(self.arguments, stdout=log, stderr=log)
        wait(lambda: self.process.poll() is not None or len(self.said("begins")) > before, 120)
        if self.process.poll() is not None:
            raise RuntimeError(self.log.read_text()[-3000:])

    def said(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of the log about an event."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{") and f'"event": "{event}"' in line]

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it; return its exit status."""
        if not self.process:
            return 0
        self.process.send_signal(number)
        status = self.process.wait(120)
        self.process = None
        return status


def trained(folder: Path) -> Path:
    """Train a small method on generated radiographs in seconds; return its run folder."""
    if not (folder / "run" / "calibration.json").exists():
        write(folder / "normals", 40, seed=1000, bright=0)
        api.train("ae", folder / "normals", folder / "run", preset="tiny", train={"epochs": 2}, held_out=0.5)
    return Run.load(folder / "run").folder


def write(folder: Path, count: int, size: int = 256, seed: int = 0, bright: int = 5) -> list[Path]:
    """Write generated CR images, a study each; one in so many has a bright square. The same seed gives the same files.

    With ``bright`` 0 none has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    odd = [bright > 0 and i % bright == bright - 1 for i in range(count)]
    return [radiograph(folder / f"{i:03d}.dcm", f"{seed}.{i}", size, bright=odd[i]) for i in range(count)]


def radiograph(path: Path, number: str, size: int = 256, bright: bool = False, study: str = "", **tags: Any) -> Path:
    """Write one whose UIDs end in a number such as 0.1, in a study of its own or another's."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = uid.ComputedRadiographyImageStorage
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{ROOT}1.{study or number}", f"{ROOT}2.{number}"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}3.{number}"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = NAME, f"{PATIENT}{number}", "19531224", "O"
    ds.Modality, ds.BodyPartExamined, ds.ViewPosition, ds.Laterality = "CR", "CHEST", "PA", ""
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = time.strftime("%Y%m%d")
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = "120000"
    ds.AccessionNumber = ds.StudyID = ds.ReferringPhysicianName = ds.Manufacturer = ""
    ds.InstanceNumber, ds.SeriesNumber, ds.PixelSpacing = 1, 1, [0.5, 0.5]
    ds.Rows = ds.Columns = size
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.WindowCenter, ds.WindowWidth = 2048, 4096
    ds.PixelData = (_chest(number, size, bright) * 4095).round().astype("<u2").tobytes()
    for name, value in tags.items():
        setattr(ds, name, value)
    ds.save_as(path, enforce_file_format=True)
    return path


def _chest(number: str, size: int, bright: bool) -> np.ndarray:
    """Return two lungs and a spine, (size, size) in [0, 1]."""
    random = np.random.default_rng([int(part) for part in number.split(".")])
    rows, columns = np.mgrid[:size, :size] / size
    shift, width, tone = random.normal(0, 0.02, 2), random.uniform(0.11, 0.14), random.uniform(0.5, 0.7)
    lungs = sum(
        np.exp(-(((columns - x - shift[0]) / width) ** 2) - ((rows - 0.5 - shift[1]) / 0.3) ** 2) for x in (0.28, 0.72)
    )
    image = (
        tone * lungs + 0.3 * np.exp(-(((columns - 0.5 - shift[0]) / 0.05) ** 2)) + random.normal(0, 0.01, (size, size))
    )
    if bright:
        image[: size // 4, size // 2 - size // 8 : size // 2 + size // 8] = 1
    return np.clip(image, 0, 1)


def send(path: Path, title: str, port: int, seconds: float = 60.0) -> bool:
    """Send a file by storescu; tell whether it was acknowledged."""
    command = [
        "storescu",
        "-to",
        "10",
        "-ta",
        "30",
        "-td",
        "30",
        "-aet",
        "SENDER",
        "-aec",
        title,
        "127.0.0.1",
        str(port),
    ]
    try:
        return subprocess.run([*command, str(path)], capture_output=True, timeout=seconds).returncode == 0
    except subprocess.TimeoutExpired:
        return False
