"""De-identify the DICOM images of a folder into another: what cannot be, or must not, is listed with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import pandas as pd

from loligo import io
from loligo.data import headers, inputs, manifest
from loligo.dicom import profile
from loligo.files import replacing, write_csv
from loligo.io import dicom_header
from loligo.io.content import UnreadableImage
from loligo.io.dicom_header import Header, tag

LIKELY = ("SC", "US")
"""Kinds of image that often have a name burnt into their pixels: secondary captures and ultrasound."""
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def deidentify(
    data: str | Path | Sequence[str | Path], out: str | Path, burned_in: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write the DICOM images of a folder, or files, without what tells of a patient; return what was, and what was not.

    Elements are treated as PS3.15's Basic Application Level Confidentiality Profile has it (see `profile`). Patients
    and UIDs get other names by the key of `data.headers`, so that a study stays one, and a repeat gives the same.
    Pixels stay as they are: images that say, or are likely, to have text burnt into them are left out, unless
    ``burned_in``. Files lie in ``out`` by patient and series, under names that follow from those. The first table has
    columns path and file, the second path and reason, as rejected.csv in ``out`` has.

    Raises ValueError where ``out`` holds files, no file can be written, or the table of the profile is missing.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} holds other files, and nothing is written over; name a folder that is new or empty")
    secret = headers.key()
    written, rejected = [], []
    profile.check()
    found = inputs.resolve(data, purpose="score")
    for path in _files(found.rows["path"]):
        try:
            written.append((manifest.writable(path), _write(path, folder, secret, burned_in)))
        except UnreadableImage as error:
            rejected.append((manifest.writable(path), str(error).removeprefix(f"{path}: ")))
    failed = pd.DataFrame(rejected, columns=["path", "reason"], dtype=str)
    failed = pd.concat([found.rejected, failed], ignore_index=True)
    write_csv(failed, folder / "rejected.csv")
    if not written:
        raise ValueError(f"none of {len(failed)} files can be written without what tells of a patient; see {folder}")
    return pd.DataFrame(written, columns=["path", "file"], dtype=str), failed


def _files(paths: Iterable[str]) -> Iterator[Path]:
    """Yield the files of images and series."""
    for path in paths:
        yield from io.files(Path(path))


def _write(path: Path, folder: Path, secret: bytes, burned_in: bool) -> str:
    """Write a file without what tells of its patient; return its new name."""
    about = io.about(path)
    if about is None:
        raise UnreadableImage(path, "is not DICOM")
    header = dicom_header.load(path, pixels=True, every=True)
    if not burned_in:
        _refuse_text(header)
    dataset = header.dataset
    profile.apply(dataset, patient := headers.hashed(about.patient, secret), secret)
    place = [str(dataset.get(word, "")).rpartition(".")[2] for word in ("SeriesInstanceUID", "SOPInstanceUID")]
    if not all(place):
        raise header.refuse(f"has no {tag('SOPInstanceUID')} or {tag('SeriesInstanceUID')}")
    name = "/".join((patient or "unknown", *(f"{int(number):032x}" for number in place)))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(whole := BytesIO(), enforce_file_format=True)
    with replacing(folder / name) as new:
        new.write_bytes(whole.getbuffer())
    return name


def _refuse_text(header: Header) -> None:
    """Raise for an image that has text burnt into its pixels, or is of a kind that often has and does not deny it."""
    said = header.code("BurnedInAnnotation")
    if said == "YES":
        raise header.refuse(f"its {tag('BurnedInAnnotation')} is YES; NO is allowed, or --burned_in after a look at it")
    kind = "SC" if header.text("SOPClassUID") == _CAPTURE else header.text("Modality")
    if said != "NO" and kind in LIKELY:
        raise header.refuse(
            f"is of a kind ({kind}) that often has text burnt in, and its {tag('BurnedInAnnotation')} is {said}; NO is"
            " allowed, or --burned_in after a look at it"
        )
