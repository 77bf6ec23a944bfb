"""Write docs/results.md: every table there comes from a file in experiments/results.

python -m experiments.tables --out docs/results.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.common import RESULTS
from loligo import NOTICE
from loligo.data.acquisition import STEPS
from loligo.files import write_text
from loligo.methods import marked
from loligo.reports.benchmark import page, words

Row = dict[str, Any]
ZHANGLAB = ("benchmark_zhanglab", "benchmark_zhanglab_more", "benchmark_zhanglab_rest")
DIGIT_ANATOMY = ("benchmark_digit_anatomy_more", "benchmark_digit_anatomy")
"""Folders of the benchmarks of all methods on a data set; a method of several counts in the first."""
HEAD = f"""# Results

Written by `python -m experiments.tables --out docs/results.md` from `experiments/results/`; what they mean is in
[protocol.md](protocol.md), how they came about in the [lab notes](lab/index.md). AUC with its 95 % interval; ± is the
standard deviation over seeds. {NOTICE}
"""


def csv(name: str) -> pd.DataFrame:
    """Read a table of results; empty text stays empty."""
    text = dict.fromkeys(("commit", "preset", "method", "dataset", "options"), str)
    return pd.read_csv(RESULTS / name, dtype=text).fillna({name: "" for name in text})  # type: ignore[call-overload]


def number(value: Any, digits: int = 3) -> str:
    """Write a number, a dash for none."""
    return "–" if value is None or pd.isna(value) else f"{value:,.{digits}f}"


def interval(row: Row, name: str = "auc") -> str:
    """Write a metric with its interval."""
    return f"{row[name]:.3f} ({row[f'{name}_low']:.3f}–{row[f'{name}_high']:.3f})"


def preset(row: Row) -> str:
    """Write the preset of a row."""
    return row["preset"] or "default"


def table(rows: pd.DataFrame, **columns: str | Callable[[Row], str]) -> str:
    """Return Markdown: a column is a key of the rows, or what a function writes of a row; ``_`` is a space."""
    head = tuple(name.replace("_", " ") for name in columns)
    body = [
        tuple(
            get(row) if callable(get) else marked(row[get]) if get == "method" else str(row[get])
            for get in columns.values()
        )
        for row in rows.to_dict("records")
    ]
    return words.markdown_table(head, body)


def benchmark(*folders: str) -> pd.DataFrame:
    """Return the summaries of benchmarks of one data set, best first; a method of several counts in the first."""
    parts = [csv(f"{folder}/summary.csv") for folder in folders]
    rows = pd.concat(parts).drop_duplicates(["dataset", "method", "preset"])
    return rows.sort_values("auc", ascending=False, ignore_index=True)


def zhanglab() -> str:
    """Return all methods on ZhangLab beside their published figures."""
    known = page.published().query("dataset == 'zhanglab'")
    papers = known[["method", "auc", "ours"]].rename(columns={"auc": "published"})
    rows = benchmark(*ZHANGLAB).merge(papers, on="method", how="left")
    return table(
        rows,
        Method="method",
        Preset=preset,
        AUC=lambda r: f"{words.spread(r, 'auc')} ({words.interval(r, 'auc')})",
        AUC_paper_protocol=lambda r: words.spread(r, "paper_auc"),
        Gap=lambda r: f"{r['gap']:+.3f}",
        Training_s=lambda r: number(r["train_seconds"], 0),
        Epochs=lambda r: f"{r['epochs']:.3g}",
        Published_AUC=lambda r: number(r["published"]),
        Our_implementation=lambda r: "" if pd.isna(r["ours"]) or str(r["preset"]).startswith("earlier") else r["ours"],
    )


def digit_anatomy() -> str:
    """Return all methods on DigitAnatomy of MNIST's digits, by kind of anomaly and by pixel."""
    rows = benchmark(*DIGIT_ANATOMY)
    kinds = {k.capitalize(): lambda r, k=k: number(r[f"kind_{k}"]) for k in ("disorder", "flipped", "missing", "novel")}
    return table(
        rows,
        Method="method",
        Preset=preset,
        AUC=lambda r: f"{words.spread(r, 'auc')} ({words.interval(r, 'auc')})",
        **kinds,
        Pixel_AUROC=lambda r: number(r["pixel_auroc"]),
        Pixel_AP=lambda r: number(r["pixel_ap"]),
        Epochs=lambda r: f"{r['epochs']:.3g}",
    )


def trainings(dataset: str) -> str:
    """Return the single trainings on a data set, a row each, with both protocols."""
    rows = csv("results.csv").query("dataset == @dataset")
    kind = ["method", "preset", "seed", "train_seconds"]
    rows = rows.assign(again=rows.groupby([*kind, "protocol"]).cumcount())
    both = rows.query("protocol == 'clean'").merge(
        rows.query("protocol == 'paper'")[[*kind, "again", "auc", "epochs"]],
        on=[*kind, "again"],
        suffixes=("", "_paper"),
    )
    return table(
        both.sort_values(["method", "auc"], ascending=[True, False]),
        Method="method",
        Preset=preset,
        Seed="seed",
        Epochs="epochs",
        AUC=interval,
        AUC_paper_protocol=lambda r: f"{r['auc_paper']:.3f} (epoch {r['epochs_paper']})",
        Training_min=lambda r: number(r["train_seconds"] / 60, 1),
        Commit="commit",
    )


def references() -> str:
    """Return what one number of an image, and what labels, give on ZhangLab."""
    one = table(
        csv("one_number.csv"), One_number="number", Normals="normals", AUC=interval, Size="size", Commit="commit"
    )
    taught = csv("supervised.csv")
    pairs = [name for name in taught if name in ("validation", "test") or "," in str(name)]
    rows = [("With labels, AUC of", *(f"seed {seed}" for seed in taught["seed"]))]
    rows += [(str(name), *(number(value) for value in taught[name])) for name in pairs]
    return f"{one}\n{words.markdown_table(rows[0], rows[1:])}"


def contamination() -> str:
    """Return the AUC by the rate of abnormal training images."""
    one = csv("contamination.csv").assign(curve="contamination", level=lambda t: t["rate"])
    more = pd.read_csv(RESULTS / "benchmark_robustness" / "robustness.csv").query("curve == 'contamination'")
    rows = pd.concat([one.assign(dataset="digit_anatomy (scikit-learn)"), more])
    wide = rows.pivot_table(index=["dataset", "method"], columns="level", values="auc").reset_index()
    rates = {f"{level:.0%}": lambda r, level=level: number(r[level]) for level in sorted(set(rows["level"]))}
    return table(wide, Data="dataset", Method="method", **rates)


def corruptions() -> str:
    """Return AUC and false alarms of PaDiM by corruption and severity."""
    rows = pd.read_csv(RESULTS / "benchmark_robustness" / "robustness.csv")
    kinds = [kind for kind in STEPS if kind in set(rows["curve"])]
    rows = rows[rows["curve"].isin(kinds) & (rows["dataset"] == "zhanglab") & (rows["method"] == "padim")]
    wide = rows.pivot_table(index="curve", columns="level", values=["auc", "false_alarms"]).loc[kinds]
    wide.columns = [f"{name} {level:.0f}" for name, level in wide.columns]
    severities = {
        f"Severity_{i}": lambda r, i=i: f"{r[f'auc {i}']:.3f}, {r[f'false_alarms {i}']:.0%}" for i in range(6)
    }
    return table(wide.reset_index(), Corruption="curve", **severities)


def ablation() -> str:
    """Return what each part of SimSID gives."""
    return table(
        csv("ablation.csv"),
        Data="dataset",
        Change="change",
        Epochs="epochs",
        AUC=interval,
        Pixel_AUROC=lambda r: number(r["pixel_auroc"]),
        Training_s=lambda r: number(r["train_seconds"], 0),
        Commit="commit",
    )


def density() -> str:
    """Return the scores of one VQ-VAE and of a VAE on ZhangLab."""
    return table(
        csv("density.csv"),
        Method="method",
        Score="score",
        Epochs="epochs",
        AUC=interval,
        AP=lambda r: number(r["ap"]),
        Seconds_an_image=lambda r: number(r["seconds_all"]),
    )


def brains() -> str:
    """Return the toy brains by voxel and by volume."""
    return table(
        csv("brains.csv"),
        Method="method",
        Volumes="train",
        Epochs="epochs",
        Anomalies="set",
        Level="level",
        Score="score",
        AUC=interval,
        AP=lambda r: interval(r, "ap"),
        Best_Dice=lambda r: "–" if pd.isna(r["dice"]) else interval(r, "dice"),
    )


def exposure() -> str:
    """Return false alarms of held-out normals: unchanged, in the mean of ten changes, under the worst ordinary one."""
    rows = csv("exposure.csv")
    kind = rows["change"].where(rows["change"] == "none", rows["change"].str.startswith("ordinary").map(str))
    found = rows.groupby(["run", kind], sort=False)["flagged"].agg(["mean", "max"]).unstack()
    wide = pd.DataFrame({
        "none": found["mean", "none"], "ten": found["mean", "False"], "worst": found["max", "True"]
    }).reset_index()  # fmt: skip
    return table(
        wide,
        Run="run",
        Unchanged=lambda r: f"{r['none']:.1%}",
        Mean_of_ten_changes=lambda r: f"{r['ten']:.1%}",
        Worst_kind_of_ordinary_acquisition=lambda r: "–" if pd.isna(r["worst"]) else f"{r['worst']:.1%}",
    )


def anomalib() -> str:
    """Return PaDiM and PatchCore beside anomalib."""
    return table(
        pd.DataFrame(json.loads((RESULTS / "anomalib.json").read_text())["runs"]),
        Method="method",
        Library="library",
        Precision="precision",
        Fit_s=lambda r: number(r["fit_seconds"], 1),
        Images_per_s=lambda r: number(r["predict_images_per_s"], 1),
        Peak_GiB=lambda r: number(r["peak_memory_gib"], 2),
        AUC=lambda r: number(r["auc"]),
    )


def squid_reference() -> str:
    """Return the speed of SQUID beside its authors' code."""
    return table(
        pd.DataFrame(json.loads((RESULTS / "squid_reference.json").read_text())["rows"]),
        Task="task",
        Batch="batch",
        Precision="dtype",
        Authors_images_per_s=lambda r: number(r["reference"], 1),
        loligo_images_per_s=lambda r: number(r["loligo"], 1),
        Ratio=lambda r: number(r["ratio"], 2),
    )


SECTIONS: dict[str, tuple[str, Callable[[], str]]] = {
    "ZhangLab, all methods": (
        "Official test split (234 normal, 390 pneumonia), seeds 0, 1, 2, six minutes of training on one core "
        "(`benchmark_zhanglab/`, `benchmark_zhanglab_more/`: every cell with its command, pairwise tests, cost). "
        "Published figures are of the papers' protocol and schedule.",
        zhanglab,
    ),
    "ZhangLab, single trainings": ("As long as named (`results.csv`).", lambda: trainings("zhanglab")),
    "ZhangLab, references": (
        "Without training, and with labels (`one_number.csv`, `supervised.csv`): to read the figures above against.",
        references,
    ),
    "DigitAnatomy, all methods": (
        "MNIST's test digits, seeds 0, 1, 2, four minutes of training on one core (`benchmark_digit_anatomy/`, "
        "`benchmark_digit_anatomy_more/`): AUC by image, by kind of anomaly, and of maps by pixel.",
        digit_anatomy,
    ),
    "DigitAnatomy, single trainings": (
        "scikit-learn's digits. Rows of a preset differ in images, epochs or options: see the lab notes.",
        lambda: trainings("digit_anatomy"),
    ),
    "DigitAnatomy of MNIST's digits, single trainings": (
        "(`results.csv`.)",
        lambda: trainings("digit_anatomy_mnist"),
    ),
    "Training-set contamination": (
        "AUC by the rate of abnormal training images (`contamination.csv`, `benchmark_robustness/`), seed 0.",
        contamination,
    ),
    "Corrupted images": (
        "PaDiM on ZhangLab, 128 pixels, preset `radiograph`: AUC, and normals flagged at the clean threshold, by "
        "severity (`benchmark_robustness/`).",
        corruptions,
    ),
    "Changed exposure": ("Held-out ZhangLab normals flagged at the 5 % threshold (`exposure.csv`).", exposure),
    "SimSID, ablation": ("Seed 0, clean (`ablation.csv`).", ablation),
    "VQ-VAE and VAE on ZhangLab": ("Each score of one model, clean (`density.csv`).", density),
    "Toy brains": ("128 voxels a side (`brains.csv`).", brains),
    "Beside anomalib": (
        "One run, one core, 1,341 + 624 images of 224x224, the same network and weights (`anomalib.json`).",
        anomalib,
    ),
    "SQUID beside its authors' code": ("One run, two cores, 128x128 (`squid_reference.json`).", squid_reference),
}


def results() -> str:
    """Return the page."""
    parts = [f"## {title}\n\n{about}\n\n{make()}" for title, (about, make) in SECTIONS.items()]
    return "\n".join([HEAD, *parts])


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    write_text(results(), parser.parse_args().out)


if __name__ == "__main__":
    main()
