"""The report of a run folder: every section, what is missing, nothing from elsewhere, its charts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import yaml
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from loligo.calibration import Calibration
from loligo.evaluation import metrics
from loligo.reports.common import pictures, text
from loligo.reports.run import charts
from loligo.reports.run.embedding import Embedding
from loligo.reports.run.insight import Insight
from loligo.reports.run.page import write
from loligo.runs.scores import ScoreFolder

NORMAL, ABNORMAL, SIDE = 12, 10, 32
SIDE_OF = {"auc": 0.87, "auc_low": 0.61, "auc_high": 0.99, "ap": 0.9, "accuracy": 0.8, "f1": 0.75}
METRICS = {
    "clean": {
        **SIDE_OF,
        "threshold": 0.7,
        "n_normal": NORMAL,
        "n_abnormal": ABNORMAL,
        "note": "held-out normals",
    },
    "paper": {
        **{**SIDE_OF, "auc": 0.913, "auc_low": 0.6, "auc_high": 0.98, "ap": 0.93},
        **{"epoch": 7, "note": "best of 9 epochs"},
    },
    "pixel": {"auroc": 0.81, "ap": 0.4, "best_dice": 0.5},
    "kinds": {"swapped": 0.77},
}
CONFIG = {
    "loligo": "9.8.7",
    "method": "squid",
    "method_config": {"width": 32, "learning_rate": 1e-4},
    "train": {"epochs": 3},
    "data": {"train": 100},
    "cost": {"train_seconds": 7500.0, "peak_memory_bytes": 3 * 2**30, "machine": "x86_64"},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with everything in it."""
    folder = tmp_path / "run"
    (folder / "maps").mkdir(parents=True)
    rows = [row(folder, i) for i in range(NORMAL + ABNORMAL)]
    pd.DataFrame(rows).to_csv(folder / "scores.csv", index=False)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    replace(Calibration.fit(np.linspace(0, 0.7, 19)), map_scale=0.8).save(folder / "calibration.json")
    (folder / "history.csv").write_text(
        "epoch,phase,seconds,images_per_s,alpha,beta\n1,first,2,50,1000,\n2,first,2,50,1,\n3,second,2,50,,0.4\n"
    )
    (folder / "rejected.csv").write_text("path,reason\n/clinic/jane/bad.png,/clinic/jane/bad.png: broken\n")
    return folder


@pytest.fixture
def without_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no charts, which take most of the time, where a test looks at something else."""
    for name in ("roc", "histogram", "strip", "losses"):
        monkeypatch.setattr(charts, name, lambda *_: Figure((0.1, 0.1)))


def row(folder: Path, i: int) -> dict[str, object]:
    random, abnormal = np.random.default_rng(i), i >= NORMAL
    score = random.uniform(0.4, 1.2) if abnormal else random.uniform(0, 0.9)
    paths = {kind: folder.parent / f"{kind}_{i}.png" for kind in ("image", "mask")}
    for path in paths.values():
        save(path, random.integers(0, 255, (SIDE, SIDE + 8)))
    save(paths["mask"], np.pad(np.full((8, 8), 255), ((8, SIDE - 16), (8, SIDE - 8))))
    np.save(folder / f"maps/{i}.npy", random.random((16, 16), dtype=np.float32))
    save(folder / f"maps/{i}_reconstruction.png", random.integers(0, 255, (16, 16)))
    return {
        "path": paths["image"], "split": "test", "label": int(abnormal), "patient": f"Doe{i}",
        "kind": "swapped", "mask": paths["mask"] if abnormal else "", "score": score,
        "anomaly_score": score / 2, "p_value": 0.01 if score > 0.7 else 0.5, "flag": int(score > 0.7),
        "map": f"maps/{i}.npy",
        "reconstruction": f"maps/{i}_reconstruction.png",
    }  # fmt: skip


def save(path: Path, pixels: np.ndarray) -> None:
    PIL.Image.fromarray(pixels.astype(np.uint8)).save(path)


def change(run: Path, **columns: object) -> None:
    table = pd.read_csv(run / "scores.csv")
    table.assign(**columns).to_csv(run / "scores.csv", index=False)


def words_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def page(run: Path, insight: Insight | None = None) -> str:
    return write(ScoreFolder(run), insight=insight).read_text(encoding="utf-8")


class Collector(HTMLParser):
    """Gather tags with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def embedded(labels: object) -> Insight:
    random = np.random.default_rng(0)
    found = Embedding(random.normal(size=(8, 6, 5)), random.normal(size=(6, 3, 5)), np.array(labels, dtype=object))
    errors = pd.DataFrame(columns=["group", "generator", "mse", "kl"])
    return Insight(errors, pd.DataFrame(columns=["group", "cosine"]), embedding=found)


def test_full_report_has_every_section(run: Path) -> None:
    text = page(run)
    assert 'class="missing"' in text and text.count('class="missing"') == 1  # the memory, which no file tells of
    rows = [words_of(r) for r in re.findall(r"<tr.*?</tr>", text, re.DOTALL)]
    said = {"AUC (95 % interval) 0.870 (0.610 to 0.990) 0.913 (0.600 to 0.980)", "Average precision 0.900 0.930"}
    said |= {"Accuracy 0.800 0.800", "F1 0.750 0.750", "Threshold (raw score) 0.700 –", "Pixel AUC 0.810"}
    assert said <= set(rows) and any("swapped 0.770" in row for row in rows)
    assert "9.8.7" in text and "squid flags" in text and "best of 9 epochs" in text
    assert "2 h 05 min" in text and "3.00 GiB" in text
    assert text.count("Research use only: not a medical device.") == 2
    assert all(title in text for title in ("Most abnormal", "Least abnormal", "False alarms", "Misses"))
    assert "abnormal (swapped)" in text and "normal (swapped)" not in text.replace("abnormal (swapped)", "")


def test_report_needs_nothing_else(run: Path) -> None:
    text = page(run, embedded([0, 0, 0, 0, 1, 1, 1, None]))
    addresses = set(re.findall(r"https?://[^\"' <]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    for tag, attributes in Collector(text).tags:
        assert tag not in ("script", "link", "iframe", "object")
        assert (attributes.get("src") or "data:").startswith("data:")
        assert tag != "img" or attributes["alt"]
    ids = [attributes["id"] for tag, attributes in Collector(text).tags if tag == "section"]
    assert {f"#{i}" for i in ids} == {a["href"] for tag, a in Collector(text).tags if tag == "a"}


def test_same_folder_gives_same_bytes(run: Path) -> None:
    assert page(run) == page(run)


@pytest.mark.parametrize("name", ["config.yaml", "history.csv", "metrics.json", "calibration.json", "rejected.csv"])
@pytest.mark.usefixtures("without_charts")
def test_missing_file_leaves_a_sentence(run: Path, name: str) -> None:
    (run / name).unlink()
    text = page(run)
    assert f"{name} is missing" in text
    assert text.count('class="missing"') == 2


@pytest.mark.usefixtures("without_charts")
def test_scores_alone_are_enough(run: Path) -> None:
    for path in run.iterdir():
        if path.is_file() and path.name != "scores.csv":
            path.unlink()
    change(run, map="", reconstruction="")
    text = page(run)
    assert "The method flags" in text and "There are no heat maps" in text


def test_names_are_escaped(run: Path) -> None:
    change(run, path="/x/<script>alert(1)<b>.png")  # the slash of a closing tag would end the name
    (run / "history.csv").write_text("epoch,phase,<script>x\n1,$<i>$,1\n2,$<i>$,2\n")
    (run / "rejected.csv").write_text("path,reason\n<script>.png,<img src=x>\n")
    text = page(run)
    assert "<script" not in text and "<img src=x>" not in text and "<i>" not in text
    assert "&lt;script&gt;alert(1)&lt;b&gt;.png" in text


@pytest.mark.usefixtures("without_charts")
def test_folders_and_patients_are_not_shown(run: Path) -> None:
    (run.parent / "image_0.png").write_bytes(b"no image")
    (run.parent / "image_1.png").unlink()
    text = page(run)
    assert str(run.parent) not in text and "/clinic" not in text and "Doe" not in text
    assert "bad.png: broken" in text


@pytest.mark.usefixtures("without_charts")
def test_unreadable_pictures_say_why(run: Path) -> None:
    for i in range(NORMAL + ABNORMAL):
        (run / f"maps/{i}.npy").write_bytes(b"")
        (run / f"maps/{i}_reconstruction.png").unlink()
    (run.parent / "image_0.png").unlink()
    change(run, path=str(run.parent / "image_0.png"))
    assert "cannot be read: image_0.png" in page(run)
    change(run, path=str(run.parent / "image_1.png"), mask="nowhere.png")
    text = page(run)
    assert "is missing or not a finite (H, W) array" in text and "cannot be read: No such file" in text


@pytest.mark.usefixtures("without_charts")
def test_unreadable_mask_is_told_in_the_alt_text(run: Path) -> None:
    change(run, mask="nowhere.png")
    assert "its mask cannot be read: nowhere.png" in page(run)


@pytest.mark.usefixtures("without_charts")
def test_without_labels_it_is_a_worklist(run: Path) -> None:
    change(run, label="")
    (run / "metrics.json").unlink()
    text = page(run)
    assert "Triage: the 10 most abnormal" in text and "about 1 would be flagged by chance" in text
    assert "There is no ROC curve" in text and "False alarms" not in text and "Misses" not in text


@pytest.mark.parametrize(("label", "shown", "hidden"), [(0, "False alarms", "Misses"), (1, "Misses", "False alarms")])
@pytest.mark.usefixtures("without_charts")
def test_one_class_has_no_roc(run: Path, label: int, shown: str, hidden: str) -> None:
    change(run, label=label)
    text = page(run)
    assert "There is no ROC curve" in text and f"<h3>{shown}" in text and f"<h3>{hidden}" not in text


@pytest.mark.usefixtures("without_charts")
def test_only_the_test_split_is_reported(run: Path) -> None:
    change(run, split=["test"] * 4 + ["validation"] * (NORMAL + ABNORMAL - 4))
    assert "from 4 scored images" in page(run)


@pytest.mark.usefixtures("without_charts")
def test_history_without_losses(run: Path) -> None:
    (run / "history.csv").write_text("\n")
    assert "history.csv holds no losses" in page(run)
    (run / "history.csv").write_text("epoch,phase,alpha\n1,first,\n")
    assert "history.csv holds no losses" in page(run)


@pytest.mark.usefixtures("without_charts")
def test_broken_file_leaves_the_report_that_was_there(run: Path) -> None:
    before = page(run)
    (run / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match="metrics"):
        write(ScoreFolder(run))
    assert (run / "report.html").read_text(encoding="utf-8") == before


@pytest.mark.usefixtures("without_charts")
def test_out_is_where_it_is_written(run: Path) -> None:
    out = run / "elsewhere" / "page.html"
    assert write(ScoreFolder(run), out) == out
    assert out.is_file() and not (run / "report.html").exists()


def test_embedding_is_drawn_for_four_places(run: Path) -> None:
    text = page(run, embedded([0, 0, 0, 0, 1, 1, 1, None]))
    assert 'class="missing"' not in text
    assert all(f"place {i} of 6" in text for i in (1, 3, 4, 6))
    assert all(f">{kind}<" in text for kind in ("normal", "abnormal", "unlabelled", "memory slots"))


def test_embedding_of_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"features \(2, 3, 4\), memory \(1, 5, 4\) and 2 labels do not fit"):
        Embedding(np.zeros((2, 3, 4)), np.zeros((1, 5, 4)), np.zeros(2))


def test_noise_of_full_size_stays_below_8_mb(run: Path) -> None:
    save(run.parent / "noise.png", np.random.default_rng(0).integers(0, 255, (300, 300)))
    save(run / "maps/noise.png", np.random.default_rng(0).integers(0, 255, (256, 256)))
    change(run, path=str(run.parent / "noise.png"), reconstruction="maps/noise.png", flag=[0, 1] * 11)
    assert len(page(run)) < 8_000_000


def test_roc_without_resampling_has_the_area_that_scikit_learn_finds() -> None:
    random = np.random.default_rng(0)
    labels, grid = random.integers(0, 2, 300).astype(float), np.linspace(0, 1, 2001)
    scores = np.round(labels + random.normal(size=300), 1) + random.normal(size=300) * 1e-9
    curve, *resampled = charts.roc_curves(labels, scores, np.arange(300), grid)
    assert np.trapezoid(curve, grid) == pytest.approx(roc_auc_score(labels, scores), abs=2e-3)
    assert len(resampled) == metrics.RESAMPLES


def test_tied_scores_are_one_step_of_the_roc() -> None:
    curve = charts.roc_curves(np.array([1.0, 0.0]), np.zeros(2), np.arange(2), np.array([0, 0.5, 1]))[0]
    assert curve.tolist() == [0, 0, 1]


def test_loss_axis_is_logarithmic_beyond_two_decades() -> None:
    history = pd.DataFrame({"epoch": [1, 2], "phase": ["a", "a"], "wide": [1000.0, 1.0], "narrow": [2.0, 1.0]})
    wide, narrow = charts.losses(history).axes
    assert (wide.get_yscale(), narrow.get_yscale()) == ("log", "linear")


def test_epochs_are_whole_numbers_even_if_there_is_but_one() -> None:
    history = pd.DataFrame({"epoch": [6], "phase": ["a"], "x": [2.0]})
    (axes,) = charts.losses(history).axes
    assert [tick for tick in axes.get_xticks() if 5.5 < tick < 6.5] == [6]


def test_outline_is_the_border_of_the_mask() -> None:
    mask = np.zeros((12, 12), bool)
    mask[2:10, 2:10] = True
    assert pictures.outline(mask, (12, 12)).sum() == 8 * 8 - 4 * 4


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.9123, "0.912"), (1.0, "1.00"), (123.0, "123"), (None, "–"), (float("nan"), "–"), (12, "12")],
)
def test_numbers_are_written_to_three_digits(value: object, written: str) -> None:
    assert text.number(value) == written


@pytest.mark.parametrize("column", ["map", "reconstruction"])
@pytest.mark.usefixtures("without_charts")
def test_pictures_of_elsewhere_are_not_shown(run: Path, column: str) -> None:
    change(run, **{column: str(run.parent / "image_0.png")})
    with pytest.raises(ValueError, match=r"only files below its own maps/ are allowed"):
        write(ScoreFolder(run))


def test_bars_of_scores_that_are_all_equal() -> None:
    from loligo.reports.run.charts import _edges

    for value in (0.1, 1e6, 0.0):
        edges = _edges([np.array([value])], float(np.nextafter(value, np.inf)))
        assert edges[0] < value < edges[-1] and np.all(np.diff(edges) > 0)
