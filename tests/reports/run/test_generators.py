"""The section on generators: its numbers, its figures, and the files that they are written to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from matplotlib.figure import Figure

from loligo.reports.run import generators
from loligo.reports.run.insight import Example, Insight, cosine
from loligo.reports.run.page import write
from loligo.runs.scores import ScoreFolder

SIDE, GRID, DEPTH = 12, 2, 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder with two scored images and nothing else."""
    for name in ("a", "b"):
        PIL.Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{name}.png")
    rows = [{"path": f"{name}.png", "split": "test", "score": i, "label": i} for i, name in enumerate("ab")]
    table = pd.DataFrame(rows).assign(anomaly_score=[0.2, 0.9], p_value=0.5, flag=0)
    table.to_csv(tmp_path / "scores.csv", index=False)
    return tmp_path


def example(seed: int = 0, title: str = "row 2", grid: int = GRID) -> Example:
    random = np.random.default_rng(seed)
    images = {name: random.random((1, SIDE, SIDE)) for name in ("original", "teacher", "student")}
    features, inpainted = random.normal(size=(2, grid**2, DEPTH))
    return Example(title, images, {"teacher": (0.01234, 0.5), "student": (0.2, 1.5)}, features, inpainted)


def insight(*examples: Example) -> Insight:
    rows = [
        ("abnormal", "teacher", 0.04, 2.0),
        ("held-out normals", "teacher", 0.01, 1.0),
        ("held-out normals", "teacher", 0.03, 3.0),
        ("held-out normals", "student", 0.5, 0.25),
    ]
    errors = pd.DataFrame(rows, columns=["group", "generator", "mse", "kl"])
    cosines = pd.DataFrame([("abnormal", 0.25), ("normal", 1.0), ("normal", 0.5)], columns=["group", "cosine"])
    return Insight(errors, cosines, examples)


def words_in(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(match=lambda a: hasattr(a, "get_text")))


def test_means_are_by_group_and_generator_in_a_fixed_order() -> None:
    table = insight().summary()
    assert table.to_numpy().tolist() == [
        ["held-out normals", "teacher", 2, 0.02, 2.0],
        ["held-out normals", "student", 1, 0.5, 0.25],
        ["abnormal", "teacher", 1, 0.04, 2.0],
    ]
    assert insight().similarity() == {"normal": 0.75, "abnormal": 0.25}


def test_the_page_has_the_section_and_its_figures_stand_beside_it(folder: Path) -> None:
    text = write(ScoreFolder(folder), insight=insight(example(0), example(1, "row <3>"))).read_text(encoding="utf-8")
    assert 'id="generators"' in text and 'href="#generators"' in text
    assert "<td>0.0200</td>" in text and "normal 0.750, abnormal 0.250" in text
    assert "row &lt;3&gt;" in text and "row <3>" not in text
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {"generators.csv", "histogram.png", "patches.png", "reconstructions.png", "roc.png", "scores.png"}
    for path in (folder / "figures").glob("*.png"):
        with PIL.Image.open(path) as opened:
            assert opened.width > 500 and np.asarray(opened.convert("L")).std() > 10
    pd.testing.assert_frame_equal(pd.read_csv(folder / "figures" / "generators.csv"), insight().summary())


def test_without_insight_there_is_no_section_and_old_figures_go(folder: Path) -> None:
    write(ScoreFolder(folder), insight=insight(example()))
    text = write(ScoreFolder(folder)).read_text(encoding="utf-8")
    assert "generators" not in text
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {"histogram.png", "roc.png", "scores.png"}


def test_without_features_there_are_reconstructions_alone(folder: Path) -> None:
    write(ScoreFolder(folder), insight=insight(dataclasses.replace(example(), features=None, inpainted=None)))
    assert (folder / "figures" / "reconstructions.png").is_file()
    assert not (folder / "figures" / "patches.png").exists()


def test_the_same_insight_gives_the_same_bytes(folder: Path) -> None:
    def files() -> list[bytes]:
        write(ScoreFolder(folder), insight=insight(example()))
        return [path.read_bytes() for path in sorted((folder / "figures").iterdir())]

    assert files() == files()


def test_reconstructions_show_each_image_above_its_reconstructions() -> None:
    few = [example(0, "first"), example(1, "second")]
    figure = generators.reconstructions(few)
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert len(shown) == 6
    for place, (one, name) in {1: (few[1], "original"), 2: (few[0], "teacher"), 5: (few[1], "student")}.items():
        np.testing.assert_allclose(shown[place], np.rint(one.images[name][0] * 255))
    assert figure.axes[1].get_title() == "second"
    assert "MSE 0.0123\nKL 0.500" in words_in(figure)


def test_patches_show_the_least_the_median_and_the_most_similar() -> None:
    one = example(3, grid=3)
    assert one.features is not None and one.inpainted is not None
    similar = cosine(one.features, one.inpainted)
    first, middle, last = generators.places(one)
    assert (similar[first], similar[middle], similar[last]) == (similar.min(), np.median(similar), similar.max())
    figure = generators.patches([one])
    assert len(figure.axes) == 4 * 3
    row, column = divmod(last, 3)
    crop = one.images["original"][0, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4]
    np.testing.assert_allclose(figure.axes[2].images[0].get_array(), np.rint(crop * 255))
    crop = one.images["student"][0, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4]
    np.testing.assert_allclose(figure.axes[5].images[0].get_array(), np.rint(crop * 255))
    assert f"cosine {similar[last]:.3f}" in figure.axes[11].get_xlabel()
    assert figure.axes[8].images[0].get_clim() == figure.axes[11].images[0].get_clim()


def test_patches_are_of_the_first_and_the_last_image() -> None:
    figure = generators.patches([example(i, f"image {i}") for i in range(4)])
    titles = [axes.get_title() for axes in figure.axes[:6]]
    assert [title.split("\n")[0] for title in titles] == ["image 0"] * 3 + ["image 3"] * 3


def test_features_lie_in_a_square_in_order() -> None:
    assert generators.square(np.arange(4.0)).tolist() == [[0, 1], [2, 3]]
    laid = generators.square(np.arange(5.0))
    assert laid.shape == (2, 3) and laid[0].tolist() == [0, 1, 2] and np.isnan(laid[1, 2])


def test_cosine_of_known_vectors() -> None:
    a, b = np.array([[1.0, 0], [1, 1], [0, 0]]), np.array([[0.0, 2], [2, 2], [1, 0]])
    np.testing.assert_allclose(cosine(a, b), [0, 1, 0])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"images are teacher; 'original' must be among them"):
        Example("x", {"teacher": np.zeros((1, 4, 4))}, {})
    with pytest.raises(ValueError, match=r"features \(3, 2\) and in-painted ones \(3, 2\) must be \(L, D\) alike"):
        Example("x", {"original": np.zeros((1, 4, 4))}, {}, np.zeros((3, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="row 9: there are no features"):
        generators.places(Example("row 9", {"original": np.zeros((1, 4, 4))}, {}))
