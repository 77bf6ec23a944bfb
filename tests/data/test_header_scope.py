"""What headers of training images allow in others: modality, view, body part and age, of files written by pydicom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicom_files import series, write
from loligo.data import checks, inputs
from loligo.data.header_scope import ANY, HeaderScope
from loligo.io import UnreadableImage

PLAIN = np.arange(72, dtype=np.uint16).reshape(8, 9)


def radiographs(folder: Path, *tags: dict[str, Any]) -> list[str]:
    return [str(write(folder / f"{i}", PLAIN + i, **one)) for i, one in enumerate(tags)]


def adults(folder: Path) -> HeaderScope:
    """Return the scope of chests of 18 to 75 years, PA and AP, one of which says nothing of itself."""
    chest = {"BodyPartExamined": "CHEST"}
    return HeaderScope.of(
        radiographs(
            folder,
            chest | {"ViewPosition": "PA", "PatientAge": "018Y"},
            chest | {"ViewPosition": " ap", "PatientAge": "075Y", "Modality": "DX"},
            {"BodyPartExamined": "chest  PA", "ViewPosition": "PA", "PatientAge": "050Y"},
            {},
        )
    )


def odd(scope: HeaderScope, folder: Path, **tags: Any) -> dict[str, str]:
    return scope.reasons(write(folder / "new", PLAIN, **tags))


def test_what_training_images_say_is_gathered(tmp_path: Path) -> None:
    scope = adults(tmp_path)
    assert scope == HeaderScope(("CR", "DX"), ("AP", "PA"), ("CHEST", "CHEST PA"), (18, 75))
    assert scope.told == "CR or DX; AP or PA; CHEST or CHEST PA; 18 to 75 years" and ANY.told == ""
    assert HeaderScope.of([]) == ANY == HeaderScope.of([str(tmp_path / "gone")])


def test_what_no_training_image_said_is_named_with_tag_value_and_what_is_allowed(tmp_path: Path) -> None:
    scope = adults(tmp_path / "in")
    found = odd(scope, tmp_path, ViewPosition="LL", BodyPartExamined="KNEE", PatientAge="003Y")
    assert found == {
        "other_view": "lateral view: its View Position (0018,5101) is LL; AP, PA are allowed, as of the training"
        " images",
        "other_body_part": "another part of the body: its Body Part Examined (0018,0015) is KNEE; CHEST, CHEST PA are"
        " allowed, as of the training images",
        "other_age": "patient of another age: its Patient's Age (0010,1010) is 3 years; 14 and more are allowed, 20%"
        " beyond the 18 to 75 of the training patients",
    }
    assert found.keys() <= set(checks.NOT_SCORED)
    assert checks.why_not_scored(("other_view", "copy"), found) == f"not scored: {found['other_view']}"


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ({}, []),
        ({"ViewPosition": "Pa "}, []),
        ({"ViewPosition": "LATERAL"}, ["other_view"]),
        ({"ViewPosition": "LLD"}, ["other_view"]),
        ({"ViewPosition": ""}, []),
        ({"ViewPosition": "frontal, upright, of somebody"}, []),  # no code of DICOM: not compared, nor shown
        ({"BodyPartExamined": "Thorax"}, []),
        ({"BodyPartExamined": "PORT CHEST"}, []),
        ({"BodyPartExamined": "HAND"}, ["other_body_part"]),
        ({"BodyPartExamined": None}, []),
        ({"PatientAge": "014Y"}, []),
        ({"PatientAge": "013Y"}, ["other_age"]),
        ({"PatientAge": "006M"}, ["other_age"]),
        ({"PatientAge": "105Y"}, []),  # all above 90 are 90, and 75 allows up to 90
        ({"PatientAge": "old"}, []),
        ({"Modality": "DX"}, []),
    ],
)
def test_what_is_absent_or_the_same_refuses_nothing(tmp_path: Path, tags: dict[str, Any], named: list[str]) -> None:
    assert list(odd(adults(tmp_path / "in"), tmp_path, **tags)) == named


def test_a_code_of_the_view_counts_where_there_is_no_view_position(tmp_path: Path) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "399067008", "SCT", "lateral"
    assert "is LATERAL" in odd(adults(tmp_path / "in"), tmp_path, ViewCodeSequence=[code])["other_view"]
    laterals = HeaderScope.of(radiographs(tmp_path / "laterals", *[{"ViewPosition": view} for view in ("LL", "RL")]))
    assert laterals.views == ("LATERAL",)
    assert odd(laterals, tmp_path, ViewCodeSequence=[code]) == odd(laterals, tmp_path, ViewPosition="RL") == {}


def test_what_few_training_images_say_is_no_rule(tmp_path: Path) -> None:
    scope = HeaderScope.of(radiographs(tmp_path / "in", {"ViewPosition": "PA", "PatientAge": "030Y"}, {}, {}))
    assert scope == HeaderScope(("CR", "DX"))
    assert odd(scope, tmp_path, ViewPosition="LL", PatientAge="001Y", BodyPartExamined="HAND") == {}


def test_children_have_their_own_range(tmp_path: Path) -> None:
    scope = HeaderScope.of(radiographs(tmp_path / "in", {"PatientAge": "018M"}, {"PatientAge": "005Y"}))
    assert scope.ages == (1, 5)
    for age, allowed in (("001D", True), ("006Y", True), ("007Y", False), ("040Y", False)):
        assert (odd(scope, tmp_path, PatientAge=age) == {}) == allowed


def test_arrays_and_other_files_have_no_header(tmp_path: Path) -> None:
    scope = adults(tmp_path / "in")
    (tmp_path / "text").write_text("no image")
    assert scope.reasons(None) == scope.reasons(tmp_path / "text") == scope.reasons(tmp_path / "gone") == {}


def test_other_modalities_than_most_are_rejected_by_name(tmp_path: Path) -> None:
    radiographs(tmp_path, {}, {}, {"Modality": "DX"})
    mammogram = write(tmp_path / "mg", PLAIN, Modality="MG", ViewPosition="MLO")
    volume = series(tmp_path / "ct", np.zeros((2, 4, 4), np.int16))[0]
    rows = inputs.resolve(tmp_path, purpose="train").rows
    scope = HeaderScope.of(rows["path"])
    assert scope == HeaderScope(("CR", "DX"))  # views of others than most count for nothing
    kept, rejected = scope.only(rows)
    assert len(kept) == 3 and set(rejected["path"]) == {str(mammogram), str(volume.parent / "IM0001")}
    assert all("as of most training images, are allowed" in why for why in rejected["reason"])
    with pytest.raises(UnreadableImage, match=r"mg: its Modality \(0008,0060\) is MG; CR and DX"):
        scope.refuse_other(mammogram)
    ANY.refuse_other(mammogram)


def test_what_is_written_is_read_and_old_runs_have_fewer_rules(tmp_path: Path) -> None:
    scope = adults(tmp_path)
    assert scope.written() == {
        "modalities": ["CR", "DX"],
        "views": ["AP", "PA"],
        "body_parts": ["CHEST", "CHEST PA"],
        "ages": [18, 75],
    }
    assert HeaderScope.read(scope.written() | {"train": 4}) == scope
    assert HeaderScope.read({"modalities": ["CT"]}) == HeaderScope(("CT",)) and HeaderScope.read({}) == ANY


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"modalities": "CR"}, r"data.modalities is 'CR'; it must be a list such as \[CR, DX\]"),
        ({"views": [1]}, r"data.views is \[1\]"),
        ({"ages": ["18", "90"]}, r"data.ages is .*; it must be a list such as \[18, 90\]"),
        ({"ages": [18]}, r"data.ages is \[18\]; it must be 2 whole numbers of years"),
    ],
)
def test_what_has_another_form_is_named(about: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HeaderScope.read(about)
