"""The sheet of one image: its words, its pictures, one page of PDF, and how it fails."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from loligo.calibration import Calibration
from loligo.data.checks import WARNINGS
from loligo.data.neighbours import Neighbours
from loligo.reports.common.text import shorten
from loligo.reports.sheet import page as sheet
from loligo.reports.sheet import pictures as sheet_pictures
from loligo.reports.sheet import plain
from loligo.reports.sheet.case import Case
from loligo.types import Image, Volume

try:
    sheet.check(Path("case.pdf"))
    NO_PANGO = ""
except ValueError as error:
    if not isinstance(error.__cause__, OSError):  # the package is there, the library that it loads is not
        raise
    NO_PANGO = str(error)
needs_pango = pytest.mark.skipif(bool(NO_PANGO), reason=NO_PANGO)

SIDE = 64
NORMALS = np.linspace(0, 1, 99)  # a score of x has about 100 * (1 - x) normals above it
CALIBRATION = replace(Calibration.fit(NORMALS), typical_peak=0.5, map_scale=1.0)
NOTICE = "Research use only: not a medical device."


def picture(name: str = "normal.png", shape: tuple[int, int] = (80, 100)) -> Image:
    random = np.random.default_rng(len(name))
    return Image(random.random((1, *shape), dtype=np.float32), Path("/clinic/Jane Doe") / name)


def heat(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """A map whose full colour is 1, hot in boxes of (first row, last row + 1, first column, last column + 1)."""
    found = np.full((SIDE, SIDE), 0.1, np.float32)
    for top, bottom, left, right in boxes:
        found[top:bottom, left:right] = 2
    return found


def case(score: float = 0.5, **changes: object) -> Case:
    found = Case(
        image=picture("image.png", (SIDE, SIDE)),
        method="ae",
        run="first",
        written=date(2031, 5, 7),
        calibration=CALIBRATION,
        score=score,
        map=heat((4, 20, 6, 22)),
        reconstruction=np.zeros((SIDE, SIDE), np.float32),
        neighbours=Neighbours(tuple(Path(f"/clinic/n{i}.png") for i in range(3)), 200, False, 0.5, 0.5),
        normals=tuple(picture(f"n{i}.png") for i in range(3)),
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def html(of: Case, folder: Path) -> str:
    return sheet.write([of], folder / "case.html").read_text(encoding="utf-8")


def text(page: str) -> str:
    """The words of a page, without its tags, styles and charts."""
    bare = re.sub(r"<(style|svg).*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", bare).replace("\xa0", " ").split())


def suggested(of: Case) -> str:
    return " ".join(plain.suggestions(of))


def confident(count: int, score: float) -> str:
    """What is said of a score where the calibration normals score 1, 2, 3, ... ``count``."""
    return " ".join(plain.confidence(case(score, calibration=Calibration.fit(np.arange(1.0, count + 1)))))


def test_a_page_has_all_facts(tmp_path: Path) -> None:
    said = text(html(case(0.995), tmp_path))
    assert "image.png Anomaly sheet of one image, 64 × 64 pixels. Method ae, run first, written on 2031-05-07" in said
    assert "Flagged Higher than 98 of 99 held-out normal images" in said
    assert "p-value 0.020 score 1.70" in said  # (1 + 1) / 100, and 0.495 / 0.2916
    assert "Score: 1.70 deviations above the mean of those normals." in said
    assert (
        "1 of 99 held-out normal images scores as high; counting this image with them, that is about 1 in 50." in said
    )
    assert "1 upper zone, image left 16 × 16 px, 6.2 % 3.00" in said
    assert (
        "typical normal 1 in 20 normals" in said and "hotter than the hottest place of 19 in 20 normal images" in said
    )
    assert "Reconstruction" in said
    assert all(f"Normal image {i + 1} n{i}.png" in said for i in range(3)) and "200 training images" in said
    assert "not the patient's left: in the usual frontal display it is the patient's right" in said
    assert "What to look at next Compare region 1" in said
    assert said.count(NOTICE) == 2 and said.startswith("image.png: anomaly sheet " + NOTICE) and said.endswith(NOTICE)


def test_a_page_needs_nothing_else_and_tells_no_folder(tmp_path: Path) -> None:
    page = html(case(), tmp_path)
    assert set(re.findall(r"https?://[^\"' <]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not re.search(r"<(script|link|iframe|object)", page)
    sources = re.findall(r'<img src="([^"]*)"', page)
    assert len(sources) == 7 and all(source.startswith("data:image/") for source in sources)
    assert "Jane" not in page and "/clinic" not in page


def test_sizes_are_in_mm_where_the_spacing_of_pixels_is_known() -> None:
    of = case(map=heat((4, 20, 6, 46)))
    assert of.hot is not None and isinstance(of.image, Image)
    (region,) = of.hot.regions
    assert plain.region_row(region, of.image)[1] == "40 × 16 px, 16 %"
    assert plain.region_row(region, replace(of.image, spacing=(0.5, 0.2)))[1] == "8 × 8 mm, 16 %"


def test_names_are_escaped(tmp_path: Path) -> None:
    of = case(image=picture("<script>alert(1)<b>.png"), run="<i>", normals=(picture("<u>&.png"),))
    page = html(of, tmp_path)
    assert "<script" not in page and "<b>" not in page and "<i>," not in page and "<u>" not in page
    assert "<h1>&lt;script&gt;alert(1)&lt;b&gt;.png</h1>" in page and "&lt;u&gt;&amp;.png" in page


def test_names_that_are_not_ascii_stay_and_long_ones_are_cut_in_the_middle(tmp_path: Path) -> None:
    assert "Röntgen_胸部.png" in html(case(image=picture("Röntgen_胸部.png")), tmp_path)
    name = "a" * 150 + "b" * 97 + ".png"
    page = html(case(image=picture(name)), tmp_path)
    assert name not in page and re.search(r"<h1>a{55}…b{50}\.png</h1>", page)
    assert shorten("12345", 5) == "12345" and shorten("123456", 5) == "12…56"


def test_an_array_has_no_file_name(tmp_path: Path) -> None:
    page = html(case(image=Image(picture().pixels)), tmp_path)
    assert "<h1>image without a file name</h1>" in page


def test_no_words_of_a_diagnosis(tmp_path: Path) -> None:
    shown = " ".join(text(html(case(score), tmp_path)) for score in (0.2, 0.9, 2.0)).lower()
    assert not re.search(r"disease|patholog|pneumon|lesion|cancer|tumou?r|infect|diagnos|healthy|\bsick", shown)


def test_without_regions_the_page_says_so(tmp_path: Path) -> None:
    said = text(html(case(map=heat()), tmp_path))
    assert (
        "None: no place of a thousandth of the image or more is in full colour." in said
        and "Compare region" not in said
    )


def test_a_method_without_a_map_or_reconstruction_is_told(tmp_path: Path) -> None:
    said = text(html(case(2.0, map=None, reconstruction=None), tmp_path))
    assert "This method gives no heat map" in said and "Unknown: there is no heat map." in said
    assert "this method does not say where" in said and "What the method expects" not in said


def test_without_training_images_the_page_says_so(tmp_path: Path) -> None:
    said = text(html(case(neighbours=None, normals=()), tmp_path))
    assert "The training images are not at hand: there are no normal images to compare with." in said
    assert "nearest normal images" not in said and "Normal image 1" not in said


def test_five_regions_are_listed_and_the_others_counted(tmp_path: Path) -> None:
    boxes = [(row, row + 6, column, column + 6) for row in (4, 24, 44) for column in (4, 24, 44)]
    said = text(html(case(map=heat(*boxes)), tmp_path))
    assert said.count("6 × 6 px") == 5 and "4 further stand out less and are not listed." in said
    assert "1 further stands out less and is not listed." in text(html(case(map=heat(*boxes[:6])), tmp_path))
    assert "further" not in text(html(case(map=heat(*boxes[:5])), tmp_path))


def test_where_too_much_is_hot_the_page_says_so_and_lists_nothing(tmp_path: Path) -> None:
    of = case(2.0, map=heat((4, 44, 4, 44)))
    said = text(html(of, tmp_path))
    assert "39 % of the image is in full colour: no place stands out, none is outlined. The cross marks" in said
    assert "Look at the whole image first" in said and "40 × 40 px" not in said and "None: no place" not in said


def body_in_black(padding: int) -> Image:
    pixels = np.zeros((1, SIDE, SIDE), np.float32)
    pixels[0, padding:-padding, padding:-padding] = np.linspace(0.5, 0.9, SIDE - 2 * padding)
    return Image(pixels, Path("/clinic/body.png"))


@pytest.mark.parametrize(
    ("box", "image", "words"),
    [
        ((1, 9, 1, 9), body_in_black(14), "The hottest place lies outside of the body: check collimation"),
        ((26, 36, 26, 36), body_in_black(14), ""),
        ((26, 36, 26, 36), Image(np.zeros((1, SIDE, SIDE), np.float32)), "The outline of the body was not found."),
    ],
)
def test_the_page_says_what_the_hottest_place_lies_in(box: tuple[int, ...], image: Image, words: str) -> None:
    said = " ".join(plain.where(case(image=image, map=heat(box))))  # type: ignore[arg-type]
    assert words in said and ("of the body" in said) == bool(words)
    assert "The two lungs could not be told from the rest of the image." in said  # a square has none
    assert plain.where(case(image=image, map=heat() - 1)) == []


def test_warnings_of_the_input_stand_at_the_top_in_words(tmp_path: Path) -> None:
    said = text(html(case(warnings=("inverted", "tiny")), tmp_path))
    assert said.index("The image looks like the negative of the training images") < said.index("p-value")
    assert "The image has fewer than" in said
    assert "The volume looks like the negative" in text(html(replace(volume(), warnings=("inverted",)), tmp_path))


@pytest.mark.parametrize(
    ("score", "flagged", "words"),
    [
        (2.0, True, "Higher than all 99 held-out normal images"),
        (0.97, True, "Higher than 96 of 99 held-out normal images"),
        (0.9, False, "Higher than 89 of 99 held-out normal images"),
        (0.5, False, "In the typical range of normal images"),
        (0.1, False, "Lower than 89 of 99 held-out normal images"),
        (-1, False, "Lower than all 99 held-out normal images"),
    ],
)
def test_headline(score: float, flagged: bool, words: str, tmp_path: Path) -> None:
    of = case(score)
    assert (of.flagged, plain.headline(of)) == (flagged, words)
    assert f"{'Flagged' if flagged else 'Not flagged'} {words}" in text(html(of, tmp_path))


@pytest.mark.parametrize(
    ("score", "normals", "words"),
    [
        (9.0, [1.0, 2.0], "Higher than all 2 held-out normal images"),
        (1.5, [1.0, 2.0], "In the typical range of normal images"),
        (0.5, [1.0], "Lower than the one held-out normal image"),
        (1.5, [1.0], "Higher than the one held-out normal image"),
        (1.0, [1.0] * 5, "In the typical range of normal images"),
    ],
)
def test_of_few_normals_no_more_is_said_than_they_can_tell(score: float, normals: list[float], words: str) -> None:
    assert plain.headline(case(score, calibration=Calibration.fit(normals))) == words


def test_no_share_is_rounded_up_to_all() -> None:
    said = plain.confidence(case(0.0, calibration=Calibration.fit(range(1, 1001))))
    assert "99.6 % to 100 % would score as high" in " ".join(said)


@pytest.mark.parametrize(
    ("count", "score", "counted", "rates"),
    [
        (
            130,
            999,
            "None of 130 held-out normal images scores as high",
            "about 1 in 131. Of all .* 0 % to 2.8 % .* sure",
        ),
        (
            130,
            121,
            "10 of 130 held-out normal images score as high",
            "about 1 in 12. Of all .* 3.8 % to 14 % .* 5 % lies",
        ),
        (
            20,
            15,
            "6 of 20 held-out normal images score as high",
            "about 33 in 100. .* few .* p cannot be below 1 in 21",
        ),
        (1, 5, "The one held-out normal image does not score as high", "about 50 in 100"),
        (1, 0, "The one held-out normal image scores as high", "about 100 in 100"),
    ],
)
def test_confidence_in_words(count: int, score: float, counted: str, rates: str) -> None:
    said = confident(count, score)
    assert said.startswith(f"{counted}; counting this image with them, that is ")
    assert re.search(rates, said)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(0, 130, 0, 1 - 0.025 ** (1 / 130)), (1, 7, 0.00361, 0.57872), (130, 130, 0.025 ** (1 / 130), 1)],
)
def test_the_interval_is_that_of_an_exact_test(hits: int, count: int, low: float, high: float) -> None:
    assert plain.interval(hits, count) == pytest.approx((low, high), abs=1e-5)


@pytest.mark.parametrize(
    ("share", "words"), [(0.05, "1 in 20"), (0.25, "1 in 4"), (0.57, "57 in 100"), (1, "100 in 100")]
)
def test_shares_as_people_count(share: float, words: str) -> None:
    assert plain.one_in(share) == words


def test_suggestions_for_a_region() -> None:
    said = suggested(case(0.9))
    assert (
        "Compare region 1 with the same place on the other side of the image, in the nearest normal images and in the "
        "reconstruction."
    ) in said
    assert "Not flagged does not mean normal" in said
    alone = suggested(case(map=heat((4, 20, 20, 44)), reconstruction=None, neighbours=None, normals=()))
    assert "Look closely at region 1." in alone


def test_suggestions_for_two_regions_that_face_each_other() -> None:
    said = suggested(case(map=heat((24, 40, 6, 22), (24, 38, 42, 58))))
    assert "Regions 1 and 2 lie at the same height on both sides: compare the two." in said
    assert "the other side" not in said
    assert "same height" not in suggested(case(map=heat((4, 20, 6, 22), (44, 58, 42, 58))))
    assert "same height" not in suggested(case(map=heat((1, 8, 6, 22), (12, 20, 42, 58))))  # both in the upper third


def test_suggestions_for_regions_at_the_border() -> None:
    said = suggested(case(map=heat((0, 20, 6, 22), (24, 36, 42, 54))))
    assert "Region 1 touches the border of the image: check collimation" in said and "Compare region 2 with" in said
    assert "Regions 1 and 2 touch the border" in suggested(case(map=heat((0, 20, 6, 22), (24, 36, 50, 64))))
    assert "border" not in suggested(case())


def test_suggestions_for_an_image_that_differs_as_a_whole() -> None:
    assert "The score is high but no place stands out: look at the whole image" in suggested(case(2.0, map=heat()))
    assert "The score is high" not in suggested(case(0.5, map=heat()))
    near = case().neighbours
    assert near is not None
    far = suggested(case(neighbours=replace(near, dissimilarity=0.997)))
    assert "It looks like no training image: 99.7 % of those have a closer look-alike among the others" in far
    assert "mean is brighter than that of all of the training images" in suggested(
        case(neighbours=replace(near, darker=1.0))
    )
    assert "mean is darker than that of all of the training images" in suggested(
        case(neighbours=replace(near, darker=0.0))
    )
    few = replace(near, dissimilarity=1.0, darker=1.0, count=20)  # of 21 images one must be the farthest
    assert not re.search("no training image|Its mean", suggested(case()) + suggested(case(neighbours=few)))


def test_suggestions_for_another_shape() -> None:
    said = suggested(case(image=picture("x.png", (50, 100))))
    assert "Its width to height is 2.00, that of the normal images shown 1.25: check cropping and padding." in said
    various = (picture("a.png", (100, 100)), picture("b.png", (100, 150)))
    assert "1.00 to 1.50" in suggested(case(image=picture("x.png", (50, 100)), normals=various))
    assert "width to height" not in suggested(case()) + suggested(case(normals=various))


def test_the_flag_is_put_in_its_place() -> None:
    assert (
        "Flagged does not mean abnormal: about 1 in 20 images like the held-out ones would be flagged too."
        in suggested(case(2.0))
    )


@pytest.mark.parametrize(("shape", "side"), [((100, 100), 89), ((100, 200), 152), ((200, 100), 46)])
def test_pictures_take_the_room_that_there_is(shape: tuple[int, int], side: float) -> None:
    assert sheet_pictures.fitted(shape, sheet_pictures.large(shape))[0] == side


def test_the_chart_marks_image_and_threshold() -> None:
    chart = sheet_pictures.chart(case().calibration, 0.7)
    assert chart.startswith("<svg") and "this image<" in chart and "flagged from here" in chart
    assert "this volume at 1.71e+03" in sheet_pictures.chart(case().calibration, 500.0, "volume")  # beyond its end


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"case\.doc: a sheet ends in \.pdf or \.html, not '\.doc'"):
        sheet.write([case()], tmp_path / "case.doc")
    assert not list(tmp_path.iterdir())


REFUSED = r"pip install weasyprint.* Pango .*libpango.*-o case\.html"


def test_without_its_package_a_pdf_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)  # as if it were not installed
    with pytest.raises(ValueError, match=REFUSED):
        sheet.write([case()], tmp_path / "case.pdf")
    assert not list(tmp_path.iterdir())
    assert NOTICE in html(case(), tmp_path)


def test_without_pango_a_pdf_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weasyprint.py").write_text("print('advice'); raise OSError('cannot load libpango\\nmore')")
    monkeypatch.delitem(sys.modules, "weasyprint", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"\(cannot load libpango\): " + REFUSED) as refused:
        sheet.check(tmp_path / "case.pdf")
    assert "\n" not in str(refused.value) and capsys.readouterr().out == ""


def crowded() -> Case:
    """A case that says as much as a page can have to say."""
    boxes = [(row, row + 16, column, column + 10) for row in (0, 24, 48) for column in (2, 18, 34, 50)]
    near = case().neighbours
    assert near is not None
    return case(
        2.0,
        image=picture("W" * 250 + ".png", (200, 100)),
        map=heat(*boxes),
        run="r" * 200,
        neighbours=replace(near, dissimilarity=1.0, darker=1.0),
        normals=tuple(picture("M" * 240 + f"{i}.png", (100, 130)) for i in range(3)),
        warnings=tuple(WARNINGS),
    )


@needs_pango
@pytest.mark.parametrize("of", [case(), case(map=None, neighbours=None, normals=()), crowded()])
def test_a_pdf_is_one_page_of_a4_with_all_words(of: Case, tmp_path: Path) -> None:
    from pypdf import PdfReader

    reader = PdfReader(sheet.write([of], tmp_path / "case.pdf"))
    assert len(reader.pages) == 1
    assert [float(side) for side in reader.pages[0].mediabox[2:]] == pytest.approx([595.28, 841.89], abs=0.1)
    said = " ".join(reader.pages[0].extract_text().split())
    assert said.count(NOTICE) == 2
    assert all(" ".join(words.split()[:4]) in said for words in plain.suggestions(of))
    last = "nearest of 200 training images" if of.neighbours else "The training images are not at hand"
    assert last in said
    assert (
        reader.metadata is not None
        and reader.metadata.title == f"{shorten(of.image.source.name, sheet.NAME)}: anomaly sheet"
    )


def test_regions_are_those_of_the_map_at_its_calibrated_scale() -> None:
    found = case(map=2 * heat((4, 20, 6, 22))).hot
    assert found is not None and found.regions[0].peak == pytest.approx(7.0, rel=1e-3)  # (4 - 0.5) / (1 - 0.5)
    none = case(map=heat((4, 20, 6, 22)) / 2.1).hot
    assert none is not None and none.regions == () and none.peak == pytest.approx(0.905, abs=0.01)


def volume(at: tuple[int, int, int] | None = (6, 10, 4)) -> Case:
    shape = (12, 16, 8)
    voxels = np.random.default_rng(0).random(shape, dtype=np.float32)
    affine = np.diag([1.0, 2, 3, 1])
    image = Volume(Path("/clinic/Jane/scan.nii.gz"), shape, affine, (1.0, 2.0, 3.0), shape, ("R", "A", "S"), {}, voxels)
    found = np.full(shape, 0.1, np.float32)
    if at:
        x, y, z = at
        found[x - 2 : x + 3, y - 2 : y + 3, z - 1 : z + 2] = 2
        found[at] = 3
    return case(image=image, map=found, reconstruction=None, neighbours=None, normals=())


def test_a_volume_has_three_planes_twice_with_their_sides_and_the_places_in_mm(tmp_path: Path) -> None:
    page = html(volume(), tmp_path)
    said = text(page)
    assert "scan.nii.gz Anomaly sheet of one volume, 12 × 16 × 8 voxels." in said and "Jane" not in page
    assert len(re.findall("<figure", page)) == 6
    for title in (
        "axial, slice 5 of 8 from the feet",
        "coronal, slice 11 of 16 from the back",
        "sagittal, slice 7 of 12",
    ):
        assert title in said
    assert "1 axial slice 5, coronal 11, sagittal 7 5 × 10 × 9 mm" in said
    assert "19 in 20 normal volumes" in said and "R and L are the patient's right and left" in said
    assert "For comparison" not in said and "99 held-out normal volumes" in said and "normal image" not in said
    assert "None: no place is in full colour." in text(html(volume(None), tmp_path))
    assert "does not say where" in text(html(replace(volume(), map=None), tmp_path))


def test_several_sheets_are_one_page_of_html(tmp_path: Path) -> None:
    page = sheet.write([case(), volume()], tmp_path / "two.html").read_text(encoding="utf-8")
    assert page.count("<article>") == 2 and "<title>2 anomaly sheets</title>" in page
    assert page.index("image.png") < page.index("scan.nii.gz")


@needs_pango
def test_several_sheets_are_one_pdf_a_page_each(tmp_path: Path) -> None:
    from pypdf import PdfReader

    reader = PdfReader(sheet.write([case(), volume()], tmp_path / "two.pdf"))
    assert [("image.png" in page.extract_text(), "scan.nii" in page.extract_text()) for page in reader.pages] == [
        (True, False),
        (False, True),
    ]


def test_no_bar_of_the_chart_is_flagged_in_part() -> None:
    normals = np.random.default_rng(0).normal(size=50)
    calibration = Calibration.fit(normals, 0.05)
    figure = sheet_pictures.chart.__wrapped__(calibration, 0.0)
    bars = figure.axes[0].patches
    threshold = (calibration.threshold - calibration.mean) / calibration.std
    assert min(abs(bar.get_x() - threshold) for bar in bars) < 1e-8
    flagged = sum(bar.get_height() for bar in bars if bar.get_x() > threshold - 1e-8)
    assert flagged == (normals >= calibration.threshold).sum()
    assert sum(bar.get_height() for bar in bars) == 50
