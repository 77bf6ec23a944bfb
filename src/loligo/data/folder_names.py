"""What the name of a folder, or a word in a table, says: a split, normal, abnormal, masks, or nothing of that kind.

A name is read by its words, in any case, singular or plural: ``train_normal``, ``0_Normal``, ``Tumour cases``,
``imagesTr``. It counts as normal only where nothing in it speaks against that, and as abnormal by any such word.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Kind = Literal["", "normal", "abnormal", "mask"]
"""Empty where a name says none of these."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


NORMAL = _set("""
    clean cn control good hc healthy inlier intact neg negative nofinding nominal norm normal notumor notumour
    ok okay unaffected unremarkable
""")
ABNORMAL = _set("""
    abnormal abnormality abnormalities anomaly anomalies anomalous bad bleed bleeding broken cancer carcinoma
    cardiomegaly consolidation covid crack cyst damaged defect defective demented dementia disease diseased
    drusen edema effusion embolism emphysema fault faulty fibrosis fracture fractured glaucoma glioblastoma
    glioma haematoma haemorrhage hematoma hemorrhage hernia hydrocephalus ill infarct infarction infected
    infection infiltrate infiltration injured injury ischaemia ischemia lesion malignancy malignant mass
    masses melanoma meningioma metastases metastasis ng nodule nok oedema opacity opacities outlier pathologic
    pathological pathologies pathology pneumonia pneumothorax polyp pos positive retinopathy scratch sick
    stroke tb trauma tuberculosis tumor tumour ulcer ungood unhealthy
""")
SPLITS = {
    "train": "train",
    "training": "train",
    "trainset": "train",
    "calibration": "calibration",
    "calib": "calibration",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "valset": "validation",
    "dev": "validation",
    "eval": "validation",
    "test": "test",
    "testing": "test",
    "testset": "test",
    "holdout": "test",
}
_MASK = _set("mask groundtruth")  # whatever stands beside it
_MASKS_ALONE = _set("annotation gt label seg segmentation")
_NOT, _WITHOUT = _set("non not un"), _set("no non without zero")
_UNCLEAR = _NOT | _WITHOUT | _set("almost and borderline free mixed near or quality quasi semi suspected vs")
_ABSENT = _set("""
    abnormality abnormalities anomaly anomalies defect demented disease finding lesion pathology tumor tumour
""")
"""What a normal image is said to be without; without a certain disease it may have another."""
_PATIENT = _set("case p pat patient pt sub subj subject")
_PLAIN = _PATIENT | _set("""
    acc accession batch center centre clinic cohort date day department device dept exam fold group hospital
    id institution machine month part reader room s scanner series ses session shard site station study unit
    visit ward week year abdomen adult all ap archive axial bone brain breast bmp chest child coronal crop
    cropped cr ct cxr data dataset dir dx eye female file film final flair folder frontal hand head heart
    image img jpeg jpg knee lat lateral left liver lung m male mr mri new nifti nii of old original pa
    paediatric pediatric people person pet picture png preprocessed private processed public radiograph raw
    ray resized retina right sagittal sample scan set skin skull slice spine the thorax tif tiff tissue us
    view volume volunteer x xr xray
""")
"""Words that say nothing of split or kind: who, where, when, how."""
_GRADES = _set("birads category class grade kl level score severity stage tier type")
"""Words that with a number mean a class."""


@dataclass(frozen=True)
class Name:
    """What one name says."""

    split: str
    """train, calibration, validation, test or empty."""
    kind: Kind
    group: bool
    """Whether it can only be a patient, site, series or the like, or is a filler."""
    filler: bool
    """Whether it does not even tell its folder from others, such as images."""
    patient: bool
    """Whether it is that of one patient, such as p07, Patient 12 or sub-003."""

    @property
    def empty(self) -> bool:
        """Tell a name that says neither split nor kind."""
        return not (self.split or self.kind)


@functools.lru_cache(maxsize=1 << 14)
def read(name: str) -> Name:
    """Read the name of a folder."""
    words = _words(name)
    patient = len(words) > 1 and words[0] in _PATIENT and any(word.isdigit() for word in words[1:])
    return Name(_split(words), _kind(words), _is_group(words), all(word in _PLAIN for word in words), patient)


def undecided(siblings: Collection[str], most: int = 20) -> list[str]:
    """Return those names of folders side by side that may be classes: two to ``most`` words or letters, or 0, 1, 2.

    Names that differ in their number alone, and more than ``most`` names, are of patients, series or the like.
    """
    numbers = sorted(int(name) for name in siblings if name.isdecimal())
    if len(numbers) == len(siblings) in range(3, 7) and numbers == list(range(len(numbers))):
        return sorted(siblings)
    shapes = Counter(re.sub(r"\d+", "#", name) for name in siblings)
    numbered = {name for name in siblings if shapes[re.sub(r"\d+", "#", name)] > 1 and _GRADES.isdisjoint(_words(name))}
    found = [name for name in siblings if name not in numbered and _may_be_class(name)]
    return sorted(found) if 2 <= len(found) <= most else []


def _may_be_class(name: str) -> bool:
    """Tell a name that is not understood, or is a letter, perhaps with a split: trainA beside trainB."""
    said, rest = read(name), [word for word in _words(name) if word not in SPLITS]
    letter = bool(rest) and all(len(word) == 1 and word.isalpha() for word in rest)
    return (said.empty and not said.group) or (letter and not said.kind)


def _words(name: str) -> list[str]:
    """Split a name into its words, singular and in lower case, and its numbers."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower().replace("ground truth", "groundtruth")
    words = re.findall(r"[^\W\d_]+|\d+", re.sub(r"ground[\W_]+truth", "groundtruth", parted))
    return [word[:-1] if word[-1:] == "s" and word[:-1] in _KNOWN else word for word in words]


_KNOWN = NORMAL | ABNORMAL | SPLITS.keys() | _MASK | _MASKS_ALONE | _ABSENT | _PLAIN | _GRADES


def _is_plain(word: str) -> bool:
    """Tell a word that says nothing of split or kind."""
    return word in _PLAIN or word in _GRADES or word.isdigit() or len(word) == 1


def _split(words: list[str]) -> str:
    """Return the split that words name; none where a word is not understood, as in stress test."""
    found = {SPLITS[word] for word in words if word in SPLITS}
    if "image" in words or "label" in words:
        found |= {split for word, split in (("tr", "train"), ("ts", "test")) if word in words}  # nnU-Net: imagesTr
    known = all(_is_plain(word) or word in _KNOWN or word in ("tr", "ts") for word in words)
    return found.pop() if len(found) == 1 and known else ""


def _kind(words: list[str]) -> Kind:
    """Return what words say of the images."""
    if not _MASK.isdisjoint(words) or _are_masks(words):
        return "mask"
    if words in (["no"], ["yes"]):
        return "normal" if words == ["no"] else "abnormal"
    normal, abnormal = [word in NORMAL for word in words], [_is_abnormal(word, words) for word in words]
    if any(first in _NOT and second in NORMAL for first, second in itertools.pairwise(words)):
        return "abnormal"
    if words[:1] and words[0] in _WITHOUT and any(word in _ABSENT for word in words):
        return "normal" if all(_is_plain(word) or word in _ABSENT for word in words[1:]) else ""
    if not _UNCLEAR.isdisjoint(words) or (any(normal) and any(abnormal)):
        return ""
    return "abnormal" if any(abnormal) else "normal" if _ends_in(words, NORMAL) else ""


def _is_abnormal(word: str, words: list[str]) -> bool:
    """Tell a word of an abnormal class; a short one, which may be an abbreviation, only among plain ones."""
    return word in ABNORMAL and (
        len(word) > 3 or all(other == word or _is_plain(other) or other in SPLITS for other in words)
    )


def _are_masks(words: list[str]) -> bool:
    """Tell words such as labels or seg that mean masks where no word beside them is strange, and no number."""
    known = (word in _KNOWN or word in ("tr", "ts") for word in words)
    return not _MASKS_ALONE.isdisjoint(words) and all(known) and _GRADES.isdisjoint(words)


def _ends_in(words: list[str], wanted: Collection[str]) -> bool:
    """Tell whether the last word that says something is one of ``wanted``, as in Leiden normal cases."""
    telling = [word for word in words if not (_is_plain(word) or word in SPLITS)]
    return bool(telling) and telling[-1] in wanted


def _is_group(words: list[str]) -> bool:
    """Tell words that name a patient, site or series, or say nothing at all."""
    known = all(_is_plain(word) or len(word) <= 2 or word in SPLITS for word in words)
    return (known and _GRADES.isdisjoint(words)) or "".join(words).isdecimal()
