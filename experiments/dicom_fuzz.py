"""Read broken and hostile DICOM files: whatever they hold, the reader answers, in time and within memory.

python -m experiments.dicom_fuzz --count 2000 --seed 0

Files of all transfer syntaxes that can be written here are changed at random: bytes of the header and of the pixels,
lengths, sizes, ends cut off; there are deflate bombs, sequences nested deep, and compressed frames that claim to be
huge. A child process reads them, so that one that crashes is seen. Prints how each ended, the slowest, and the memory.
"""

from __future__ import annotations

import argparse
import io as streams
import multiprocessing
import re
import resource
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset

from loligo import io

SLOWEST, MEMORY = 10.0, 2 << 30
"""Seconds of the processor, and bytes, that a file may take."""
HANG = 300.0
"""Seconds after which a file counts as never answered."""
COMPRESSED = (
    *("693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"),
    *("MR_small_RLE.dcm", "JPGExtended.dcm", "JPEG-lossy.dcm", "JPEG2000.dcm", "JPEGLSNearLossless_16.dcm"),
    *("UN_sequence.dcm", "CT_small.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm"),
)
"""Files inside pydicom's wheel."""


def radiograph(side: int = 64, **tags: object) -> Dataset:
    """Return a CR of 12 bits with a LUT, windows and a padding value."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = uid.ComputedRadiographyImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    ds.SeriesInstanceUID, ds.Modality, ds.PatientID = "1.2.4", "CR", "a"
    ds.Rows = ds.Columns = side
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.WindowCenter, ds.WindowWidth = [2000, 1000], [3000, 500]
    ds.RescaleSlope, ds.RescaleIntercept, ds.PixelPaddingValue = 1, 0, 0
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [4096, 0, 16], np.arange(0, 65536, 16, dtype="<u2").tobytes()
    ds.VOILUTSequence = [lut]
    ds.PixelData = np.random.default_rng(0).integers(0, 4096, (side, side), np.uint16).tobytes()
    for name, value in tags.items():
        setattr(ds, name, value)
    return ds


def written(ds: Dataset) -> bytes:
    """Return a data set as a file."""
    stream = streams.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def seeds() -> list[bytes]:
    """Return whole files to be changed."""
    found = [written(radiograph())]
    for syntax in (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless):
        ds = radiograph()
        ds.compress(syntax, generate_instance_uid=False)
        found.append(written(ds))
    for name in COMPRESSED:
        ds = pydicom.dcmread(get_testdata_file(name, download=False), force=True)
        if ds.get("Modality") not in ("CT", "MR"):
            ds.SOPClassUID, ds.Modality = uid.ComputedRadiographyImageStorage, "CR"
        found.append(written(ds))
    return found


def bytes_changed(data: bytes, random: np.random.Generator) -> bytes:
    """Change some bytes anywhere, most often in the header."""
    changed, count = bytearray(data), int(random.integers(1, 20))
    end = len(data) if random.random() < 0.4 else min(len(data), 2500)
    for place in random.integers(132, end, count):
        changed[place] = int(random.choice([0, 1, 0x7F, 0x80, 0xFF, int(random.integers(256))]))
    return bytes(changed)


def pixels_changed(data: bytes, random: np.random.Generator) -> bytes:
    """Change some bytes of the last half, where pixels are; or a stretch of them."""
    changed, start = bytearray(data), len(data) // 2
    for place in random.integers(start, len(data), int(random.integers(1, 60))):
        changed[place] = int(random.integers(256))
    if random.random() < 0.3:
        place = int(random.integers(start, len(data)))
        changed[place : place + 64] = random.bytes(64)
    return bytes(changed)


def frame_start_changed(data: bytes, random: np.random.Generator) -> bytes:
    """Change what a compressed frame says of itself at its beginning."""
    place = data.rfind(b"\xfe\xff\x00\xe0")
    changed = bytearray(data)
    for at in random.integers(max(place, 132), min(len(data), place + 200), int(random.integers(1, 8))):
        changed[at] = int(random.integers(256))
    return bytes(changed)


def cut(data: bytes, random: np.random.Generator) -> bytes:
    """Cut the end off, or a piece out."""
    place = int(random.integers(0, len(data)))
    return data[:place] if random.random() < 0.6 else data[:place] + data[place + int(random.integers(1, 5000)) :]


def huge(data: bytes, random: np.random.Generator) -> bytes:
    """Claim a size that memory does not hold."""
    ds = pydicom.dcmread(streams.BytesIO(data), force=True)
    name = str(random.choice(["Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored", "SamplesPerPixel"]))
    setattr(ds, name, int(random.choice([0, 1, 3, 16, 32, 64, 65535])))
    if name in ("Rows", "Columns"):
        ds.Rows = int(random.choice([1, 65535, 30000]))
    return written(ds)


def odd_values(data: bytes, random: np.random.Generator) -> bytes:
    """Give numbers that make no sense."""
    ds = pydicom.dcmread(streams.BytesIO(data), force=True)
    for name in random.choice(
        ["WindowWidth", "WindowCenter", "RescaleSlope", "RescaleIntercept", "PixelSpacing", "SliceThickness"], 2
    ):
        setattr(ds, str(name), str(random.choice(["0", "-1", "1e300", "-1e-300", "", "99999999"])))
    return written(ds)


def bomb(data: bytes, random: np.random.Generator) -> bytes:
    """Return a deflate bomb."""
    ds = radiograph()
    ds.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    whole = written(ds)
    start = whole.index(b"1.2.840.10008.1.2.1.99") + 22
    size = int(random.choice([1, 300, 1000])) << 20
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()
    return whole[: start + start % 2] + body


def nested(data: bytes, random: np.random.Generator) -> bytes:
    """Nest sequences deep, their lengths unknown."""
    depth = int(random.choice([50, 500, 20_000]))
    opening = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\xff\xff\xff\xff"
    place = data.find(b"\x10\0\x20\0")
    return data[:place] + opening * depth + data[place:]


CHANGES: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (
    *(bytes_changed, bytes_changed, bytes_changed, pixels_changed, pixels_changed, frame_start_changed),
    *(frame_start_changed, cut, huge, odd_values, bomb, nested),
)


def fuzzed(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield what was done, and the file, so many times."""
    random, whole = np.random.default_rng(seed), seeds()
    bombs: dict[int, bytes] = {}
    for index in range(count):
        change = CHANGES[index % len(CHANGES)]
        if change is bomb:  # slow to make
            kind = index // len(CHANGES) % 4
            bombs[kind] = bombs.get(kind) or bomb(b"", random)
            yield change.__name__, bombs[kind]
            continue
        data = whole[int(random.integers(len(whole)))]
        try:
            yield change.__name__, change(data, random)
        except Exception:  # pydicom would not write it
            yield "bytes_changed", bytes_changed(data, random)


def _read(pipe: multiprocessing.connection.Connection) -> None:
    """Read the files whose names come; answer with how each ended, the time, and the highest memory so far."""
    while name := pipe.recv():
        begun = time.process_time()  # of this process alone, however busy the machine is
        try:
            io.load(Path(name))
            ended = "read"
        except io.UnreadableImage:
            ended = "refused"
        except BaseException as error:
            ended = f"CRASH {type(error).__name__}: {error}"
        pipe.send((ended, time.process_time() - begun, _highest()))


def _highest() -> int:
    """Return the most bytes of memory that this process had; what its parent had counts only where Linux is not."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) << 10


class Child:
    """A process that reads, and is begun anew where it dies."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_read, args=(other,), daemon=True)
        self.process.start()
        other.close()

    def __call__(self, path: Path) -> tuple[str, float, int]:
        """Read a file; say how it ended."""
        self.pipe.send(str(path))
        try:
            if not self.pipe.poll(HANG):
                self.process.kill()
                self.process.join()
                return "CRASH hang", HANG, 0
            return self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            return f"CRASH died with {self.process.exitcode}", 0.0, 0


def run(count: int, seed: int, keep: Path | None = None) -> tuple[Counter[str], float, int]:
    """Read fuzzed files; return how they ended, the longest time in s and the most memory in bytes."""
    ends: Counter[str] = Counter()
    slowest, memory, child = 0.0, 0, Child()
    child(Path("/dev/null"))  # imports what it needs
    with tempfile.TemporaryDirectory() as folder:
        for index, (change, data) in enumerate(fuzzed(count, seed)):
            path = Path(folder) / str(index) / "a"  # a folder of its own, as siblings may be of one series
            path.parent.mkdir()
            path.write_bytes(data)
            ended, seconds, most = child(path)
            if ended.startswith("CRASH") or seconds > SLOWEST:
                print(f"{index} {change}: {ended} after {seconds:.1f} s", flush=True)
                if keep:
                    (keep / f"{index}_{change}.dcm").write_bytes(data)
                child = Child() if not child.process.is_alive() else child
            ends[ended.split(":")[0]] += 1
            slowest, memory = max(slowest, seconds), max(memory, most)
            path.unlink()
    return ends, slowest, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for files that are not answered")
    given = parser.parse_args()
    ends, slowest, memory = run(given.count, given.seed, given.keep)
    print(f"{dict(ends)}; the slowest took {slowest:.2f} s; memory {memory / 2**20:.0f} MiB")
    if any(end.startswith("CRASH") for end in ends) or slowest > SLOWEST or memory > MEMORY:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
