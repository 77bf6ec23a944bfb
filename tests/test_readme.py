"""The documentation holds: examples run, commands parse, links lead somewhere, the page of methods is complete."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from conftest import anatomy, blob, write_images
from loligo import cli, methods
from loligo.cli import options, site

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
SMALL = {"padim --data": "gaussian --data", '"padim"': '"gaussian"', "radiograph": "tiny", "epochs 10": "epochs 1"}
"""What examples have in place of what would take minutes."""


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def small(text: str) -> str:
    """Return an example with what takes minutes replaced."""
    for old, new in SMALL.items():
        text = text.replace(old, new)
    return text


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of each loligo command of a page."""
    for block in blocks(page, "shell"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            assert words[:1] == ["loligo"], f"{page.name}: {line}"
            yield words[1:]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with the files that the examples name."""
    write_images(tmp_path / "normals", anatomy(24, 64))
    write_images(tmp_path / "new", anatomy(2, 64, seed=1))
    write_images(tmp_path / "new", blob(anatomy(1, 64, seed=2)), "case")
    (tmp_path / "new" / "case000.png").rename(tmp_path / "new" / "case.png")
    rows = [
        ("normals", "train", 0, range(20)),
        ("normals", "calibration", 0, range(20, 24)),
        ("new", "test", 0, [0, 1]),
    ]
    listed = [(f"{place}/{i:03d}.png", split, label) for place, split, label, numbers in rows for i in numbers]
    table = pd.DataFrame([*listed, ("new/case.png", "test", 1)], columns=["path", "split", "label"])
    table.to_csv(tmp_path / "manifest.csv", index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120


def test_shell_of_readme_runs(folder: Path) -> None:
    given = [shlex.split(small(shlex.join(words))) for words in commands(README)]
    assert [words[0] for words in given] == ["train", "score", "sheet", "report"]
    for words in given:
        cli.main(words)
    scoring = folder / "runs" / "a" / "scores" / "new"
    scores = pd.read_csv(scoring / "scores.csv")
    assert len(scores) == 3
    assert scores.loc[scores["score"].idxmax(), "path"].endswith("case.png")
    assert all((scoring / name).is_file() for name in scores["map"])
    assert (folder / "case.html").is_file()
    assert (scoring / "report.html").is_file()


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "python.md"], ids=lambda page: page.name)
def test_python_of_page_runs(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in blocks(page, "python"):
        exec(compile(small(block), str(page), "exec"), names)
    assert capsys.readouterr().out


class Parsed(Exception):
    """A command's arguments are known and complete."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_page_parse(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parse = cli.parse

    def stop(*arguments: Any) -> None:
        parse(*arguments)
        raise Parsed

    monkeypatch.setattr(cli, "parse", stop)
    monkeypatch.setattr(options, "parse", stop)
    monkeypatch.setattr(site, "parse", stop)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "squid.yaml").write_text("preset: ensemble\ntrain: {epochs: 10}\n")
    for words in commands(page):
        if words[-1] != "--help":
            with pytest.raises(Parsed):
                cli.main(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_page_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            path, _, heading = target.partition("#")
            other = page.parent / path if path else page
            assert other.exists(), f"{page.name} links to {target}"
            if heading:
                assert heading in headings(other), f"{page.name} links to {target}"


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def test_page_of_methods_has_each_with_its_time_extra_and_presets() -> None:
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    rows = {
        row[0].strip(" `"): row
        for row in re.findall(r"^\|(.*)\|(.*)\|(.*)\|(.*)\|(.*)\|(.*)\|(.*)\|$", text, re.MULTILINE)
    }
    for name, time, extra, _ in methods.table():
        _, _, _, said, features, _, presets = map(str.strip, rows[name])
        assert (said, features) == (time, "yes" if extra else "no"), name
        assert set(re.findall(r"`(\w+)`", presets)) == set(methods.get(name).presets) - {"tiny"}, name


def test_the_table_of_methods_fits_a_terminal() -> None:
    assert max(20 + 8 + 9 + 6 + len(good_at) for _, _, _, good_at in methods.table()) <= 100
    assert sum(good_at.startswith("START HERE") for _, _, _, good_at in methods.table()) == 1
