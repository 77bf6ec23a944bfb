"""The sheet of one image: its words, its pictures, one page of PDF, and how it fails."""

from __future__ import annotations

import base64
import io
import re
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest

from loligo.calibration import Calibration
from loligo.data.neighbours import Neighbours
from loligo.reports.common.text import shorten
from loligo.reports.sheet import page as sheet
from loligo.reports.sheet import pictures as sheet_pictures
from loligo.reports.sheet import plain
from loligo.reports.sheet.case import Case
from loligo.reports.sheet.regions import Region
from loligo.types import Image

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
NOTICE = "Research use only: not a medical device."


def picture(name: str = "normal.png", shape: tuple[int, int] = (80, 100)) -> Image:
    random = np.random.default_rng(len(name))
    return Image(random.random((1, *shape), dtype=np.float32), Path("/clinic/Jane Doe") / name)


def heat(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """A map whose typical peak is 1, hot in boxes of (first row, last row + 1, first column, last column + 1)."""
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
        calibration=replace(Calibration.fit(NORMALS), map_scale=3.0),
        score=score,
        map=heat((4, 20, 6, 22)),
        reconstruction=np.zeros((SIDE, SIDE), np.float32),
        neighbours=Neighbours(tuple(Path(f"/clinic/n{i}.png") for i in range(3)), 200, False, 0.5, 0.5),
        normals=tuple(picture(f"n{i}.png") for i in range(3)),
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def html(of: Case, folder: Path) -> str:
    return sheet.write(of, folder / "case.html").read_text(encoding="utf-8")


def text(page: str) -> str:
    """The words of a page, without its tags, styles and charts."""
    bare = re.sub(r"<(style|svg).*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", bare).replace("\xa0", " ").split())


def suggested(of: Case) -> str:
    return " ".join(plain.suggestions(of, sheet.REGIONS))


def confident(count: int, score: float) -> str:
    """What is said of a score where the calibration normals score 1, 2, 3, ... ``count``."""
    return " ".join(plain.confidence(case(score, calibration=Calibration.fit(np.arange(1.0, count + 1)))))


def test_a_page_has_all_facts(tmp_path: Path) -> None:
    said = text(html(case(0.995), tmp_path))
    assert "image.png Anomaly sheet of one image, 64 × 64 pixels. Method ae, run first, written on 2031-05-07" in said
    assert "Flagged Higher than nearly all normal images" in said
    assert "0.845 anomaly score 0.020 p-value" in said  # sigmoid of 0.495 / 0.2916, and (1 + 1) / 100
    assert (
        "1 of 99 held-out normal images scores as high; counting this image with them, that is about 1 in 50." in said
    )
    assert "1 upper zone, image left 16 × 16 px, 6.2 % 2.00 ×" in said
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
    (region,) = case(map=heat((4, 20, 6, 46))).regions
    assert plain.region_row(region, None)[1] == "40 × 16 px, 16 %"
    assert plain.region_row(region, (0.5, 0.2))[1] == "8 × 8 mm, 16 %"


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
        "No region stands out: no place of a thousandth of the image or more is hotter" in said
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


def test_five_regions_are_outlined_and_the_others_counted(tmp_path: Path) -> None:
    boxes = [(row, row + 6, column, column + 6) for row in (4, 24, 44) for column in (4, 24, 44)]
    page = html(case(map=heat(*boxes)), tmp_path)
    assert page.count('class="badge"') == 5
    assert "4 further regions stand out less and are not outlined." in text(page)
    assert "1 further region stands out less and is not outlined." in text(html(case(map=heat(*boxes[:6])), tmp_path))
    assert "further" not in text(html(case(map=heat(*boxes[:5])), tmp_path))


@pytest.mark.parametrize(("seen", "words"), [("train", "the method learnt from"), ("calibration", "with itself")])
def test_an_image_that_the_run_has_seen_is_warned_of(tmp_path: Path, seen: str, words: str) -> None:
    assert words in text(html(case(seen=seen), tmp_path))
    assert "This very image" not in text(html(case(), tmp_path))


@pytest.mark.parametrize(
    ("score", "flagged", "words"),
    [
        (2.0, True, "Higher than nearly all normal images"),
        (0.97, True, "Higher than nearly all normal images"),
        (0.9, False, "Higher than most normal images"),
        (0.5, False, "In the typical range of normal images"),
        (0.1, False, "Lower than most normal images"),
    ],
)
def test_headline(score: float, flagged: bool, words: str, tmp_path: Path) -> None:
    of = case(score)
    assert (of.flagged, plain.headline(of)) == (flagged, words)
    assert f"{'Flagged' if flagged else 'Not flagged'} {words}" in text(html(of, tmp_path))


def test_of_few_normals_no_more_is_said_than_they_can_tell() -> None:
    assert (
        plain.headline(case(9.0, calibration=Calibration.fit([1.0, 2.0])))
        == "Higher than the few held-out normal images"
    )
    assert plain.headline(case(1.5, calibration=Calibration.fit([1.0, 2.0]))) == "In the typical range of normal images"
    assert plain.headline(case(0.5, calibration=Calibration.fit([1.0]))) == "Lower than the few held-out normal images"
    assert plain.headline(case(1.0, calibration=Calibration.fit([1.0] * 5))) == "In the typical range of normal images"


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
    assert "Not flagged does not mean normal" in said and "Many normal images have an outlined place too." in said
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
    assert "Hot regions cover 39 % of the image: check exposure" in suggested(case(map=heat((4, 44, 4, 44))))
    assert "The score is high but no region stands out: look at the whole image" in suggested(case(2.0, map=heat()))
    assert "The score is high" not in suggested(case(0.5, map=heat()))
    near = case().neighbours
    assert near is not None
    far = suggested(case(neighbours=replace(near, dissimilarity=0.997)))
    assert "No training image is similar to it: 99.7 % of them" in far
    assert "mean is brighter than that of all of the training images" in suggested(
        case(neighbours=replace(near, darker=1.0))
    )
    assert "mean is darker than that of all of the training images" in suggested(
        case(neighbours=replace(near, darker=0.0))
    )
    few = replace(near, dissimilarity=1.0, darker=1.0, count=20)  # of 21 images one must be the farthest
    assert not re.search("No training image|Its mean", suggested(case()) + suggested(case(neighbours=few)))


def test_suggestions_for_another_shape() -> None:
    said = suggested(case(image=picture("x.png", (50, 100))))
    assert "Its width to height is 2.00, that of the normal images below 1.25: check the cropping." in said
    various = (picture("a.png", (100, 100)), picture("b.png", (100, 150)))
    assert "1.00 to 1.50" in suggested(case(image=picture("x.png", (50, 100)), normals=various))
    assert "width to height" not in suggested(case()) + suggested(case(normals=various))


def test_the_flag_is_put_in_its_place() -> None:
    assert (
        "Flagged does not mean abnormal: about 1 in 20 images like the held-out ones would be flagged too."
        in suggested(case(2.0))
    )


def pixels(of: sheet_pictures.Print) -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(of.uri.split(",")[1]))))


def test_the_outline_runs_around_the_region() -> None:
    dark = np.zeros((1, SIDE, SIDE), np.float32)
    of = case(map=heat((16, 48, 16, 48)))
    assert of.map is not None
    shown = pixels(sheet_pictures.outlined(dark, np.zeros_like(of.map), 3.0, of.regions, "")).astype(int)
    side = shown.shape[0]
    cyan = (shown[..., 2] > 180) & (shown[..., 0] < 80)
    rows = np.flatnonzero(cyan.any(axis=1))
    assert rows[0] == pytest.approx(side / 4, abs=6) and rows[-1] == pytest.approx(side * 3 / 4, abs=6)
    assert not cyan[side * 3 // 10 : side * 7 // 10, side * 3 // 10 : side * 7 // 10].any()


@pytest.mark.parametrize(("shape", "size"), [((100, 100), (74, 74)), ((10, 100), (90, 9)), ((100, 10), (7.4, 74))])
def test_pictures_fit_their_place(shape: tuple[int, int], size: tuple[float, float]) -> None:
    assert sheet_pictures.fitted(shape, sheet_pictures.LARGE) == pytest.approx(size)


def test_numbers_stand_inside_the_picture_and_apart() -> None:
    boxes = [(0, 8, 0, 8), (0, 8, 10, 18), (56, 64, 56, 64), (24, 40, 24, 40), (24, 40, 44, 60)]
    found = [SimpleNamespace(mask=heat(box) > 1) for box in boxes]
    at = np.array(sheet_pictures.badges(found, (60.0, 40.0)))  # type: ignore[arg-type]
    half = sheet_pictures.BADGE / 2
    assert (at >= half).all() and (at <= np.array([60, 40]) - half).all()
    apart = np.linalg.norm(at[:, None] - at, axis=2) + 99 * np.eye(len(at))
    assert apart.min() >= sheet_pictures.BADGE
    for (x, y), one in zip(at, found, strict=True):
        rows, columns = np.nonzero(one.mask)
        near = np.hypot((columns + 0.5) * 60 / SIDE - x, (rows + 0.5) * 40 / SIDE - y).min()
        assert near < 1.5 * sheet_pictures.BADGE


def test_the_chart_marks_image_and_threshold() -> None:
    chart = sheet_pictures.chart(case().calibration, 0.7)
    assert chart.startswith("<svg") and "this image" in chart and "flagged from here" in chart


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"case\.doc: a sheet ends in \.pdf or \.html, not '\.doc'"):
        sheet.write(case(), tmp_path / "case.doc")
    assert not list(tmp_path.iterdir())


REFUSED = r"pip install 'loligo\[pdf\]'.* Pango .*libpango.*-o case\.html"


def test_without_its_package_a_pdf_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)  # as if it were not installed
    with pytest.raises(ValueError, match=REFUSED):
        sheet.write(case(), tmp_path / "case.pdf")
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
        seen="train",
    )


@needs_pango
@pytest.mark.parametrize("of", [case(), case(map=None, neighbours=None, normals=()), crowded()])
def test_a_pdf_is_one_page_of_a4_with_all_words(of: Case, tmp_path: Path) -> None:
    from pypdf import PdfReader

    reader = PdfReader(sheet.write(of, tmp_path / "case.pdf"))
    assert len(reader.pages) == 1
    assert [float(side) for side in reader.pages[0].mediabox[2:]] == pytest.approx([595.28, 841.89], abs=0.1)
    said = " ".join(reader.pages[0].extract_text().split())
    assert said.count(NOTICE) == 2
    assert all(" ".join(words.split()[:4]) in said for words in plain.suggestions(of, sheet.REGIONS))
    last = "nearest of 200 training images" if of.neighbours else "The training images are not at hand"
    assert last in said
    assert (
        reader.metadata is not None
        and reader.metadata.title == f"{shorten(of.image.source.name, sheet.NAME)}: anomaly sheet"
    )


def test_regions_are_those_of_the_map_at_its_calibrated_peak() -> None:
    found = case(map=2 * heat((4, 20, 6, 22))).regions
    assert isinstance(found[0], Region) and found[0].peak == pytest.approx(4.0, rel=1e-3)
    assert case(map=heat((4, 20, 6, 22)) / 2.1).regions == []


def test_no_bar_of_the_chart_is_flagged_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    normals = np.random.default_rng(0).normal(size=50)
    calibration = Calibration.fit(normals, 0.05)
    figure = sheet_pictures.chart.__wrapped__(calibration, 0.0)
    bars = figure.axes[0].patches
    threshold = float(calibration.anomaly_score(calibration.threshold))
    assert min(abs(bar.get_x() - threshold) for bar in bars) < 1e-8
    flagged = sum(bar.get_height() for bar in bars if bar.get_x() > threshold - 1e-8)
    assert flagged == (normals >= calibration.threshold).sum()
    assert sum(bar.get_height() for bar in bars) == 50
