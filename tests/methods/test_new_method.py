"""The method that docs/new_method.md shows, installed as a package of its own: it works as it is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import anatomy, blob, write_images
from loligo import methods

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "new_method.md").read_text(encoding="utf-8")
USE = """
import sys
import numpy as np
from pathlib import Path
import loligo
folder = Path(sys.argv[1])
assert loligo.list_methods()["mean_image"] == (
    "Mean image: the squared difference from the mean of the normal images, pixel by pixel (from mean-image)"
)
assert "mean_image.method" not in sys.modules
run = loligo.train("mean_image", folder / "normals", folder / "run", preset="tiny", options={"power": 1.5}, folds=0)
scores = loligo.score(run, folder / "new").sort_values("path")["score"].to_numpy()
assert (scores[10:] > scores[:10]).all()
kept = run.manifest().query("split == 'train'")["path"]
np.save(folder / "kept.npy", [int(Path(path).stem) for path in kept])
np.save(folder / "mean.npy", run.model().mean.numpy())
"""


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package of the page, without a network, and return the folder that it is installed to."""
    source, site = tmp_path_factory.mktemp("mean-image"), tmp_path_factory.mktemp("site")
    (source / "mean_image").mkdir()
    (source / "mean_image" / "__init__.py").touch()
    (source / "mean_image" / "method.py").write_text(block("python"), encoding="utf-8")
    (source / "pyproject.toml").write_text(block("toml"), encoding="utf-8")
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index")
    subprocess.run([sys.executable, "-m", "pip", "install", *quiet, "--target", site, source], check=True)
    return site


def run(site: Path, *words: str | Path) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT / "src")])}
    done = subprocess.run(
        [sys.executable, *map(str, words)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line_lists_an_installed_method_in_line_with_the_others(site: Path) -> None:
    lines = run(site, "-m", "loligo", "methods").split("\n\n")[0].splitlines()[1:]
    assert [line.split()[0] for line in lines] == sorted([*methods.METHODS, "mean_image"])
    assert {len(line[:43].rstrip()) for line in lines} >= {10} and {line[41:43] for line in lines} == {"  "}
    assert next(line for line in lines if line.startswith("mean_image ")).endswith("  from mean-image")
    assert "--method.power" in run(site, "-m", "loligo", "train", "mean_image", "--help")


def test_an_installed_method_trains_and_scores(site: Path, tmp_path: Path) -> None:
    normal = anatomy(40, 64)
    write_images(tmp_path / "normals", normal)
    write_images(tmp_path / "new", np.concatenate([anatomy(10, 64, seed=1), blob(anatomy(10, 64, seed=1))]))
    run(site, "-c", USE, tmp_path)
    kept = np.load(tmp_path / "kept.npy")
    np.testing.assert_allclose(np.load(tmp_path / "mean.npy"), normal[kept].mean(0), atol=3e-3)  # files hold 8 bits


def offer(folder: Path, monkeypatch: pytest.MonkeyPatch, package: str, entry: str) -> None:
    """Put on the path what pip would leave of a package that offers a method."""
    about = folder / f"{package}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[loligo.methods]\n{entry}\n")
    monkeypatch.syspath_prepend(folder)


def test_a_name_that_is_taken_is_refused_and_the_package_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = methods.list_methods()
    offer(tmp_path / "a", monkeypatch, "impostor", "ae = nowhere:Ae")
    assert methods.list_methods() == before
    assert "the package impostor offers a method 'ae'; that name comes with loligo" in caplog.text
    assert methods.get("ae").__module__ == "loligo.methods.ae"
    offer(tmp_path / "b", monkeypatch, "first", "own = nowhere:Own")
    offer(tmp_path / "c", monkeypatch, "second", "own = elsewhere:Own")
    assert methods.list_methods()["own"] == "from second"
    assert "the package first offers a method 'own'; that name is that of the package second" in caplog.text


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("own = nowhere:Own", "the package odd offers the method 'own' as 'nowhere:Own', which cannot be imported"),
        ("own = pathlib:Own", "'pathlib:Own', which cannot be imported: module 'pathlib' has no attribute 'Own'"),
        ("own = pathlib:Path", "'pathlib:Path', which is no class of loligo.methods.contract.Method"),
    ],
)
def test_a_package_that_is_not_whole_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str, message: str
) -> None:
    offer(tmp_path, monkeypatch, "odd", entry)
    assert "own" in methods.names()
    with pytest.raises(ValueError, match=message):
        methods.get("own")


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="there is no method 'patchcor'; did you mean 'patchcore'"):
        methods.get("patchcor")
    offer(tmp_path, monkeypatch, "odd", "squidward = nowhere:Own")
    with pytest.raises(ValueError, match="did you mean 'squidward'"):
        methods.get("squidwar")
