"""The MOOD challenge's layout, on generated trees."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from loligo.cli import main
from loligo.data import manifest
from loligo.data.sources import mood


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((348).to_bytes(4, "little"))  # as a volume begins


def tree(root: Path, region: str, train: int = 40) -> None:
    """Lay out one region: toy_0 and toy_1 normal, toy_2 and toy_3 abnormal."""
    touch(*(root / f"{region}_train" / f"{i:05}.nii.gz" for i in range(train)))
    for i in range(4):
        touch(root / "toy" / f"toy_{i}.nii.gz", root / "toy_label" / "pixel" / f"toy_{i}.nii.gz")
        touch(label := root / "toy_label" / "sample" / f"toy_{i}.nii.gz.txt")
        label.write_text(f"{int(i > 1)}\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for region in mood.REGIONS:
        tree(tmp_path / region, region)
    return tmp_path


def counts(frame: pd.DataFrame) -> dict[tuple[str, str, int], int]:
    sizes = frame.groupby(["source", "split", "label"]).size()
    return sizes.to_dict()


ONE = {("train", 0): 34, ("calibration", 0): 4, ("validation", 0): 2, ("test", 0): 2, ("test", 1): 2}


def test_both_regions_are_listed_apart(root: Path) -> None:
    found = mood.index(root)
    assert counts(found) == {(f"mood_{name}", *key): n for name in mood.REGIONS for key, n in ONE.items()}
    assert found["patient"].is_unique and {"brain 00007", "abdom 00007", "brain toy_3"} < set(found["patient"])
    masks = found[found["mask"] != ""]
    assert set(masks["label"]) == {1} and len(masks) == 4
    row = masks.set_index("patient").loc["abdom toy_2"]
    assert row["path"] == str(root / "abdom" / "toy" / "toy_2.nii.gz")
    assert row["mask"] == str(root / "abdom" / "toy_label" / "pixel" / "toy_2.nii.gz")


def test_one_region_by_name_or_by_its_own_folder(root: Path) -> None:
    named, own = mood.index(root, region="brain"), mood.index(root / "brain")
    assert counts(named) == {("mood_brain", *key): n for key, n in ONE.items()}
    pd.testing.assert_frame_equal(named, own)
    with pytest.raises(FileNotFoundError, match=r"no abdom_train in .*brain or below"):
        mood.index(root / "brain", region="abdom")
    with pytest.raises(ValueError, match="region 'colon' is not one of all, brain, abdom"):
        mood.index(root, region="colon")  # type: ignore[arg-type]


def test_the_same_seed_holds_the_same_volumes_out(root: Path) -> None:
    held = [mood.index(root, seed=seed)["split"].tolist() for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2]


def test_training_volumes_alone_are_enough(tmp_path: Path) -> None:
    touch(*(tmp_path / "brain_train" / f"{i}.NII" for i in range(20)))
    (tmp_path / "brain_train" / "notes.txt").write_text("notes")
    touch(tmp_path / "brain_train" / "._0.nii")
    found = mood.index(tmp_path)
    assert len(found) == 20 and set(found["split"]) == {"train", "calibration", "validation"}
    assert "brain 7" in set(found["patient"])


def test_two_regions_in_one_folder_may_not_share_toys(tmp_path: Path) -> None:
    touch(*(tmp_path / f"{name}_train" / f"{i}.nii.gz" for name in mood.REGIONS for i in range(20)))
    assert len(mood.index(tmp_path)) == 40
    tree(tmp_path, "brain", 20)
    with pytest.raises(ValueError, match="holds both regions and one toy folder"):
        mood.index(tmp_path, region="brain")


def test_labels_of_toys_are_needed_and_checked(root: Path) -> None:
    label = root / "brain" / "toy_label" / "sample" / "toy_1.nii.gz.txt"
    short = label.rename(label.with_name("toy_1.txt"))
    assert counts(mood.index(root / "brain")) == {("mood_brain", *key): n for key, n in ONE.items()}
    short.write_text("0.5")
    with pytest.raises(ValueError, match=r"toy_1\.txt says '0\.5'; 0 .normal. or 1 .abnormal. is allowed"):
        mood.index(root)
    short.unlink()
    with pytest.raises(FileNotFoundError, match=r"toy_1\.nii\.gz\.txt does not exist; it must say whether .*toy_1"):
        mood.index(root)
    with pytest.raises(FileNotFoundError, match=r"no volume in .*abdom_train"):
        (root / "empty" / "abdom_train").mkdir(parents=True)
        mood.index(root / "empty")


def test_by_its_command(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["index", "mood", str(root), "-o", str(root / "m.csv"), "--region", "brain", "--calibration", "0.2"])
    assert "44 images" in capsys.readouterr().out
    listed = manifest.read(root / "m.csv")
    assert (listed["split"] == "calibration").sum() == 8
    pd.testing.assert_frame_equal(listed, mood.index(root, region="brain", calibration=0.2))


def test_each_region_has_its_window(root: Path) -> None:
    mood.check_window(mood.index(root, region="brain"), "brain")
    mood.check_window(mood.index(root, region="abdom"), "unit")
    mood.check_window(pd.DataFrame({"path": ["a.nii"], "source": ["folder"]}), "ct")
    mood.check_window(pd.DataFrame({"path": ["a.nii"]}), "ct")
    with pytest.raises(ValueError, match=r"44 volumes are of mood_abdom, whose window is 'unit', not 'brain'"):
        mood.check_window(mood.index(root, region="abdom"), "brain")
    with pytest.raises(ValueError, match="index one region and train on it alone"):
        mood.check_window(mood.index(root), "ct")
