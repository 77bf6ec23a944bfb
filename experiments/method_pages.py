"""Write docs/methods/NAME.md, a page a method, from its docstring, its options and the tables in experiments/results.

    python -m experiments.method_pages
    python -m experiments.method_pages --digits runs/d/padim --radiographs runs/r/padim --case pneumonia.jpeg

The second also draws docs/methods/NAME.jpg by trained runs: a fixed DigitAnatomy case, and the radiograph given. In
the committed pictures that is test/PNEUMONIA/person100_bacteria_475.jpeg of ZhangLab, the first by name.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from experiments.tables import DIGIT_ANATOMY, ZHANGLAB, benchmark, csv, interval, number, preset, table
from loligo import NOTICE, Detector, io, methods
from loligo.cli.parser import meanings_of
from loligo.config import TrainConfig
from loligo.data import digit_anatomy
from loligo.files import write_text
from loligo.io import regions
from loligo.io.overlay import annotated
from loligo.methods import declared
from loligo.reports.benchmark import page, words

FOLDER = Path(__file__).parents[1] / "docs" / "methods"
LIMIT = 60_000
"""Bytes of a picture, at most."""
KIND, SEED = "disorder", 0
"""Of the DigitAnatomy case: two digits have changed places."""
DEPARTS = re.compile(r"(?<=\n\n|\. |\.\n)(?=Departures?\b|One departure|Implemented from|Where the report)")
CAPTION = """![Input, reconstruction where there is one, and heat map]({name}.jpg)

*Input, reconstruction where the method makes one, heat map: a DigitAnatomy case in which two digits have changed
places, or a pneumonia of the ZhangLab test split (Kermany et al. 2018, CC BY 4.0), or both.*
"""


def write_page(name: str) -> str:
    """Return the page of a method."""
    title, idea, departures = told(name)
    parts = [
        f"# {name}\n\n{title}\n",
        "Written by `python -m experiments.method_pages`; [all methods](../methods.md), [all results](../results.md). "
        f"{NOTICE}\n",
        f"## Idea\n\n{idea}\n",
        CAPTION.format(name=name) if (FOLDER / f"{name}.jpg").is_file() else "",
        f"## Departures and choices\n\n{departures}\n" if departures else "",
        f"## Settings\n\n{settings(name)}",
        f"## Cost\n\n{cost(name)}\n",
        f"## Measured results\n\n{measured(name)}",
    ]
    return "\n".join(part for part in parts if part)


def told(name: str) -> tuple[str, str, str]:
    """Return title, idea and departures as the docstring of a method's module says them; arXiv numbers become links."""
    file, _ = methods.source(name)
    text = (ast.get_docstring(ast.parse(file.read_bytes())) or "") if file else ""
    text = re.sub(r"\b(\d{4}\.\d{5})\b", r"[\1](https://arxiv.org/abs/\1)", text.replace("``", "`"))
    title, _, rest = text.partition("\n\n")
    idea, *departures = DEPARTS.split(rest, 1)
    return title, idea.strip(), "".join(departures).strip()


def settings(name: str) -> str:
    """Return tables of a method's options, and of its presets but for that of tests."""
    kind = declared.read(name)
    meaning = meanings_of(kind.Config)
    fields, values = dataclasses.fields(kind.Config), kind.Config()
    rows = [(f"`{field.name}`", f"`{getattr(values, field.name)}`", meaning[field.name]) for field in fields]
    text = words.markdown_table(("Option `--method.…`", "Default", "Meaning"), rows)
    if not declared.one_pass(kind):
        train = TrainConfig(**kind.training_defaults)
        length = f"{train.steps:,} steps" if train.steps else f"{train.epochs} epochs"
        text += f"\nWithout a preset it trains for {length} on batches of {train.batch_size}.\n"
    presets = [
        (f"`{name}`", ", ".join(f"`{option}={value}`" for option, value in options.items()))
        for name, options in kind.presets.items()
        if name != "tiny"
    ]
    return text + ("\n" + words.markdown_table(("Preset", "Sets"), presets) if presets else "")


def cost(name: str) -> str:
    """Say what training takes, what it needs, and whether it exports."""
    entry, extra = methods.METHODS[name], declared.extra(name)
    needs = f"It needs the extra `{extra}`." if extra else "It needs no extra."
    exports = (
        f"It does not export: {entry.not_exportable}." if entry.not_exportable else "It exports by `torch.export`."
    )
    preset = ", by the preset for them where there is one"
    return f"Training on 1,133 radiographs takes {entry.time} on one core{preset}. {needs} {exports}"


def measured(name: str) -> str:
    """Return the rows of a method in the benchmarks' tables and among the single trainings."""
    known = page.published()[["dataset", "method", "auc"]].rename(columns={"auc": "published"})
    rows = pd.concat([benchmark(*ZHANGLAB), benchmark(*DIGIT_ANATOMY)]).query("method == @name")
    rows = rows.merge(known, on=["dataset", "method"], how="left")
    alone = csv("results.csv").query("method == @name and protocol == 'clean'")
    if len(rows) or len(alone):
        found = {"Benchmarks, within minutes of training; ± is over seeds.": (benchmarks, rows)}
        found |= {"Single trainings, as long as named.": (trainings, alone)}
        return "\n".join(f"{about}\n\n{write(some)}" for about, (write, some) in found.items() if len(some))
    papers = known.query("method == @name").to_dict("records")
    said = ", ".join(f"{row['published']:.3f} on {row['dataset']}" for row in papers)
    return "Not in the committed tables yet." + (f" Published AUC: {said}." if said else "") + "\n"


def benchmarks(rows: pd.DataFrame) -> str:
    """Return a table of benchmarks' rows."""
    return table(
        rows,
        Data="dataset",
        Preset=preset,
        Seeds="seeds",
        Epochs=lambda r: f"{r['epochs']:.3g}",
        AUC=lambda r: f"{words.spread(r, 'auc')} ({words.interval(r, 'auc')})",
        Published_AUC=lambda r: number(r["published"]),
        Pixel_AUROC=lambda r: number(r["pixel_auroc"]),
        Training_s=lambda r: number(r["train_seconds"], 0),
        Scored_images_per_s=lambda r: words.short(r["score_images_per_s"]),
        Parameters=lambda r: number(r["parameters"], 0),
        Peak_GB=lambda r: number(r["peak_memory_bytes"] / 1e9, 2),
    )


def trainings(rows: pd.DataFrame) -> str:
    """Return a table of single trainings."""
    return table(
        rows.sort_values(["dataset", "preset", "auc"]),
        Data="dataset",
        Preset=preset,
        Seed="seed",
        Epochs="epochs",
        AUC=interval,
        Training_min=lambda r: number(r["train_seconds"] / 60, 1),
        Commit="commit",
    )


def draw(cases: list[tuple[Detector, np.ndarray]], out: Path) -> None:
    """Draw what detectors of one method say of images (H, W) float32, a row each; ValueError for too large a file."""
    figure, axes = plt.subplots(len(cases), 3, figsize=(6.3, 2.1 * len(cases)), squeeze=False, layout="constrained")
    for row, (detector, image) in zip(axes, cases, strict=True):
        (seen,) = detector.predict([image])
        shown = {"input": image, "reconstruction": seen.reconstruction}
        if seen.map is not None:
            heat = detector.calibration.heat(seen.map)
            shown["heat map"] = annotated((image * 255).round().astype(np.uint8), heat, regions.find(heat))
        for one in row:
            one.set_axis_off()
        for one, (title, pixels) in zip(row, ((k, v) for k, v in shown.items() if v is not None), strict=False):
            one.imshow(pixels, cmap="gray", vmin=0, vmax=1 if pixels.ndim == 2 else None)
            one.set_title(title, fontsize=8)
    figure.savefig(out, dpi=110, pil_kwargs={"quality": 75, "optimize": True})
    plt.close(figure)
    if out.stat().st_size > LIMIT:
        raise ValueError(f"{out} has {out.stat().st_size:,} bytes; {LIMIT:,} are allowed: lower dpi or quality here")


def main() -> None:
    """Draw the pictures that runs are given for, then write all pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, nargs="*", default=[], help="runs trained on DigitAnatomy")
    parser.add_argument("--radiographs", type=Path, nargs="*", default=[], help="runs trained on radiographs")
    parser.add_argument("--case", type=Path, help="the radiograph that those are shown")
    given = parser.parse_args()
    if given.radiographs and not given.case:
        parser.error("--radiographs needs a radiograph to show them: give --case")
    images = [digit_anatomy.generate(digit_anatomy.pool(), KIND, np.random.default_rng(SEED))[0]] * len(given.digits)
    images += [io.read(given.case).pixels[0] for _ in given.radiographs]
    cases: dict[str, list[tuple[Detector, np.ndarray]]] = {}
    for run, image in zip([*given.digits, *given.radiographs], images, strict=True):
        detector = Detector.load(run)
        cases.setdefault(detector.settings.method, []).append((detector, image))
    for name, of_it in cases.items():
        draw(of_it, FOLDER / f"{name}.jpg")
    for name in methods.METHODS:
        write_text(write_page(name), FOLDER / f"{name}.md")


if __name__ == "__main__":
    main()
