"""Volumes from file to file: slices in, scores a volume, maps on the input's own grid."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from conftest import anatomy, write_images
from loligo import api, scoring
from loligo.calibration import Calibration
from loligo.cli import main
from loligo.data import cache
from loligo.data.preprocessing import Preprocessing
from loligo.detector import Detector
from loligo.io import nifti, planes, regions
from loligo.runs.mood import bounded
from loligo.runs.scores import ScoreFolder, find
from loligo.training import images

SHAPE = (20, 24, 12)  # X, Y, Z
OPTIONS = {"size": 32, "position": True, "widths": [4, 8, 8], "restorations": 2}


def brain(seed: int, shape: tuple[int, int, int] = SHAPE, lesion: bool = False) -> np.ndarray:
    """Draw (X, Y, Z) float32: a bright ellipsoid with two dark halves, in a noise of its own."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    inside = (grid**2).sum(0) < 0.8
    image = inside * (600 + 200 * np.cos(6 * grid[0]) + random.normal(0, 20, shape))
    if lesion:
        image[shape[0] // 2 : shape[0] // 2 + 4, 8:12, 4:8] = 1600
    return image.clip(0).astype(np.float32)


def save(path: Path, ras: np.ndarray, axes: str = "LPS") -> Path:
    """Write a RAS+ array to a file whose axes run otherwise, 2 mm voxels."""
    canonical = nib.Nifti1Image(ras, np.diag([2, 2, 2, 1]))
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(canonical.affine), nib.orientations.axcodes2ornt(axes)
    )
    image = canonical.as_reoriented(turn)
    image.set_sform(image.affine, 1)
    nib.save(image, path)
    return path


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder, rows = tmp_path_factory.mktemp("brains"), []
    for i, split in enumerate(["train"] * 4 + ["calibration"] * 3 + ["test"] * 4):
        abnormal = i >= 9
        path = save(folder / f"{i}.nii.gz", brain(i, lesion=abnormal), "LPS" if i % 2 else "SPL")
        mask = ""
        if abnormal:
            marked = np.zeros(SHAPE, np.float32)
            marked[10:14, 8:12, 4:8] = 1
            mask = str(save(folder / f"{i}_mask.nii.gz", marked, "RAS"))
        rows.append({"path": str(path), "split": split, "label": int(abnormal), "patient": f"p{i}", "mask": mask})
    return pd.DataFrame(rows)


def test_a_data_set_of_volumes_holds_their_slices_with_their_places(manifest: pd.DataFrame) -> None:
    data = cache.load(manifest.iloc[:3], Preprocessing(32, position=True))
    assert len(data) == 3 * 12
    assert data.counts == (12, 12, 12)
    assert data.row_of.tolist() == [0] * 12 + [1] * 12 + [2] * 12
    x = data.batch([0, 6, 11, 12])
    assert x.shape == (4, 2, 32, 32)
    np.testing.assert_allclose(x[:, 1].mean((1, 2)), [-0.5, 6 / 11 - 0.5, 0.5, -0.5], atol=1e-6)
    again = cache.load(manifest.iloc[:3], Preprocessing(32, axis="sagittal"))
    assert len(again) == 3 * 20
    assert again.batch([0]).shape == (1, 1, 32, 32)


def test_a_volume_of_one_slice_is_a_volume(tmp_path: Path) -> None:
    paths = [str(save(tmp_path / f"{i}.nii", brain(i)[:, :, 6:7])) for i in range(8)]
    splits = ["train"] * 4 + ["calibration"] * 2 + ["test"] * 2
    run = api.train("gaussian", pd.DataFrame({"path": paths, "split": splits}), tmp_path / "run", preset="tiny")
    assert images.load(run, run.manifest()).counts == (1,) * 8
    table = api.score(run)
    assert [nib.load(find(run.folder).path / file).shape for file in table["map"]] == [(20, 24, 1)] * 2


def test_a_file_that_is_cut_short_is_rejected_and_the_others_keep_their_slices(
    manifest: pd.DataFrame, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.nii.gz"
    whole = Path(manifest["path"][0]).read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    rows = pd.DataFrame({"path": [manifest["path"][0], str(bad), manifest["path"][1]]})
    data = cache.load(rows, Preprocessing(16))
    assert data.counts == (12, 12)
    assert list(data.rows["path"]) == [manifest["path"][0], manifest["path"][1]]
    assert list(data.rejected["path"]) == [str(bad)]


def test_a_ct_mapped_to_one_keeps_its_values(tmp_path: Path) -> None:
    """MOOD's abdomens lie in [0, 1]; the window of HU would make them one grey, even of two voxels that overshoot."""
    ras = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    rows = pd.DataFrame({"path": [str(save(tmp_path / "ct.nii.gz", ras))]})
    data = cache.load(rows, Preprocessing(32, window="unit"), folder=tmp_path / "cache")
    assert data.batch(range(12)).std() > 0.15
    hu = pd.DataFrame({"path": [str(save(tmp_path / "hu.nii.gz", 400 * ras - 160))]})
    again = cache.load(hu, Preprocessing(32, window="ct"), folder=tmp_path / "cache")
    np.testing.assert_allclose(again.batch(range(12)), data.batch(range(12)), atol=1e-3)


@pytest.fixture(scope="module")
def run(manifest: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    made = api.train(
        "vqvae_restoration",
        manifest,
        tmp_path_factory.mktemp("run"),
        preset="tiny",
        options=OPTIONS,
        train={"epochs": 30, "precision": "float32"},
    )
    api.score(made, batch_size=5)
    return made


def test_a_volume_scores_as_the_mean_of_its_slices_with_tissue_whatever_the_batch(
    run: api.Run, manifest: pd.DataFrame
) -> None:
    table = find(run.folder).read_scores().sort_values("path")  # 7 to 10
    table = pd.concat([table[1:], table[:1]])
    assert len(table) == 4
    data = images.load(run, manifest[manifest["split"] == "test"])
    detector = Detector.load(run)
    expected = []
    for row in range(4):
        x = data.batch(np.flatnonzero(data.row_of == row))
        contrast = x[:, 0].flatten(1).std(1)
        expected.append(float(detector(x).image.double()[contrast > 0.1 * contrast.max()].mean()))
    np.testing.assert_allclose(table["score"], expected, rtol=1e-4)
    other = api.score(run, manifest[manifest["split"] == "test"][::-1], run.folder / "b", maps="none", batch_size=16)
    np.testing.assert_allclose(other.set_index("path")["score"][table["path"]], table["score"], rtol=1e-4)


def test_air_and_a_second_head_do_not_move_a_volumes_score(manifest: pd.DataFrame, tmp_path: Path) -> None:
    normal, air = brain(20), np.zeros(SHAPE, np.float32)
    own = {"normal": normal, "air": np.concatenate([normal, air], 2), "twice": np.concatenate([normal, normal], 2)}
    for name, voxels in own.items():
        save(tmp_path / f"{name}.nii.gz", voxels)
    run = api.train("gaussian", manifest, tmp_path / "run", preset="tiny")
    predictions = Detector.load(run).predict([tmp_path / f"{name}.nii.gz" for name in own], batch_size=7)
    scores = [one.score for one in predictions]
    assert scores[1:] == pytest.approx([scores[0]] * 2, rel=0.01)


def test_by_its_rarest_codes_a_volume_scores_as_its_most_abnormal_slice(
    run: api.Run, manifest: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = run.model()
    monkeypatch.setattr(model, "config", replace(model.config, score="max_nll"))  # type: ignore[type-var]
    detector, data = Detector.of(run, model), images.load(run, manifest[manifest["split"] == "test"])
    found = detector.scores(data, batch_size=5)
    for row in range(4):
        slices = detector(data.batch(np.flatnonzero(data.row_of == row))).image
        assert found[row] == pytest.approx(float(slices.max()), rel=1e-4)
        assert float(slices.min()) < found[row]


def test_a_map_lies_on_the_grid_of_its_volume_and_is_hotter_in_the_lesion(run: api.Run) -> None:
    scoring = find(run.folder)
    table = scoring.read_scores()
    for row in table.itertuples():
        own, heat = nib.load(row.path), nib.load(scoring.path / row.map)
        assert heat.shape == own.shape
        np.testing.assert_allclose(heat.affine, own.affine, atol=1e-4)
        assert nib.aff2axcodes(heat.affine) == nib.aff2axcodes(own.affine)
        if row.mask:
            volume = nifti.read(scoring.path / row.map)
            inside = nifti.read_mask(Path(row.mask), volume)
            assert volume.voxels[inside].mean() > 1.1 * volume.voxels[~inside].mean()


def test_evaluation_counts_voxels(run: api.Run) -> None:
    found = api.evaluate(run)
    assert found["pixel"]["images"] == 4
    assert found["pixel"]["auroc"] > 0.5
    assert found["clean"]["n_abnormal"] == 2


def test_the_report_shows_three_planes_through_the_hottest_voxel(run: api.Run) -> None:
    api.evaluate(run)
    page = api.report(run).read_text(encoding="utf-8")
    for axis in ("axial", "coronal", "sagittal"):
        assert axis in page
    assert "true mask outlined" in page
    assert "cannot be read" not in page


def test_a_volume_has_a_sheet(run: api.Run, manifest: pd.DataFrame, tmp_path: Path) -> None:
    page = api.sheet(run, manifest["path"][9], tmp_path / "case.html").read_text(encoding="utf-8")
    assert "9.nii.gz" in page and "sagittal" in page


def test_the_mood_layout_keeps_the_order_of_scores_and_voxels_within_0_and_1(
    run: api.Run, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    """MOOD's evaluation clips both to [0, 1], so that nothing above 1 and no tie may come of the layout."""
    paths = [str(manifest["path"][9]), str(tmp_path / "in" / "plain.nii")]
    (tmp_path / "in").mkdir()
    save(Path(paths[1]), brain(0), "RAS")
    calibration, out = Calibration.load(run.folder / "calibration.json"), tmp_path / "out"
    replace(calibration, map_scale=calibration.typical_peak + 1e-4).save(tmp_path / "run" / "calibration.json")
    for name in ("config.yaml", "model.safetensors"):
        shutil.copy(run.folder / name, tmp_path / "run")
    main(["score", str(tmp_path / "run"), *paths, "--out", str(out), "--layout", "mood"])
    table = ScoreFolder(out).read_scores()
    given = [float((out / "sample" / f"{Path(path).name}.txt").read_text()) for path in table["path"]]
    assert np.argsort(given).tolist() == np.argsort(table["score"]).tolist()
    assert len(set(given)) == 2 and min(given) > 0 and max(given) < 1
    for path, file in zip(table["path"], table["map"], strict=True):
        heat, raw = nib.load(out / "pixel" / Path(path).name), nib.load(out / file)
        np.testing.assert_allclose(heat.affine, nib.load(path).affine, atol=1e-4)
        a, b = heat.get_fdata().ravel(), raw.get_fdata().ravel()
        assert a.min() >= 0 and a.max() < 1
        rising = np.argsort(b)
        assert (np.diff(a[rising]) >= 0).all()
        assert len(np.unique(a)) > 0.95 * len(np.unique(b))


def test_bounded_tells_apart_what_a_sigmoid_does_not() -> None:
    x = np.array([-1e9, -50.0, 0.0, 1e-3, 37.0, 38.0, 1e6, 1e9])
    assert (np.diff(bounded(x)) > 0).all()
    assert bounded(x).min() > 0 and bounded(x).max() < 1 and bounded(0) == 0.5


@pytest.mark.parametrize("case", ["two of one name", "no maps", "no volume"])
def test_what_has_no_mood_layout_is_refused_before_it_is_scored(
    run: api.Run, manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    def no_score(*_: object) -> None:
        raise AssertionError("scored")

    monkeypatch.setattr(scoring, "score_table", no_score)
    paths = [str(manifest["path"][0]), shutil.copy(manifest["path"][1], tmp_path / "0.nii.gz")]
    message = {"two of one name": "two volumes are named 0.nii.gz", "no maps": "score with maps"}.get(case)
    if case == "no volume":
        paths, message = [str(write_images(tmp_path, anatomy(1))[0])], "000.png is no NIfTI volume"
    with pytest.raises(ValueError, match=message):
        api.score(run, paths, tmp_path / "b", maps="none" if case == "no maps" else "image", layout="mood")


def test_a_map_keeps_the_whole_name_of_its_volume(run: api.Run, manifest: pd.DataFrame, tmp_path: Path) -> None:
    path = shutil.copy(manifest["path"][0], tmp_path / "sub-01.T1.v2.nii.gz")
    (name,) = api.score(run, path, tmp_path / "out")["map"]
    assert re.fullmatch(r"maps/000000_sub-01\.T1\.v2_[0-9a-f]{8}\.nii\.gz", name)


def test_the_colours_of_maps_are_by_the_maps_that_are_written(
    run: api.Run, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    table = api.score(run, manifest[manifest["split"] == "calibration"], tmp_path / "out")
    peaks = [regions.peak(nib.load(tmp_path / "out" / file).get_fdata(dtype=np.float32)) for file in table["map"]]
    assert Calibration.load(run.folder / "calibration.json").typical_peak == pytest.approx(np.median(peaks), rel=1e-3)


def test_another_spacing_is_refused_in_training_and_rejected_in_scoring(
    run: api.Run, manifest: pd.DataFrame, tmp_path: Path
) -> None:
    odd = nib.load(manifest["path"][0])
    affine = odd.affine @ np.diag([1, 1, 1.25, 1])
    nib.save(nib.Nifti1Image(odd.get_fdata(dtype=np.float32), affine), tmp_path / "odd.nii.gz")
    mixed = manifest.head(7).assign(path=[str(tmp_path / "odd.nii.gz"), *manifest["path"][1:7]])
    with pytest.raises(ValueError, match=r"1 of 7 volumes have another spacing than 2 x 2 x 2 mm: .*odd\.nii.*2\.5"):
        api.train("gaussian", mixed, tmp_path / "run", preset="tiny")
    table = api.score(run, [tmp_path / "odd.nii.gz", manifest["path"][1]], tmp_path / "out", maps="none")
    assert list(table["path"]) == [manifest["path"][1]]
    rejected = pd.read_csv(tmp_path / "out" / "rejected.csv")
    assert "another spacing than 2 x 2 x 2 mm" in rejected["reason"][0] and "2.5" in rejected["reason"][0]
    assert api.Run.load(run.folder).about["data"]["spacing"] == [2, 2, 2]


def test_what_is_held_out_of_a_folder_of_volumes_can_be_read(manifest: pd.DataFrame, tmp_path: Path) -> None:
    from loligo.data import inputs

    for i in range(6):
        shutil.copy(manifest["path"][i], tmp_path / f"{i}.nii.gz")
    held = inputs.resolve(tmp_path, purpose="train").with_calibration(0.1, seed=0).rows
    broken = Path(held.loc[held["split"] == "calibration", "path"].item())
    voxels = np.full(SHAPE, np.nan, np.float32)
    nib.save(nib.Nifti1Image(voxels, np.diag([2, 2, 2, 1])), broken)
    again = inputs.resolve(tmp_path, purpose="train").with_calibration(0.1, seed=0).rows.set_index("path")["split"]
    assert again[str(broken)] == "train" and (again == "calibration").sum() == 1
    run = api.train("gaussian", tmp_path, tmp_path / "run", preset="tiny", folds=0)
    assert run.about["data"]["rejected"] == 1 and run.about["data"]["train"] + run.about["data"]["calibration"] == 5


def test_masks_of_volumes_in_class_folders_are_found(tmp_path: Path) -> None:
    from loligo.data.sources import folder

    for name in ("train/good/0", "train/good/3", "test/good/1", "test/crack/2", "ground_truth/crack/2_mask"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / f"{name}.nii.gz", brain(int(name.split("/")[2][0])))
    found = folder.index(tmp_path).set_index("path")["mask"]
    assert found[str(tmp_path / "test/crack/2.nii.gz")] == str(tmp_path / "ground_truth/crack/2_mask.nii.gz")


def test_a_folder_of_volumes_is_indexed(run: api.Run, manifest: pd.DataFrame, tmp_path: Path) -> None:
    for i in range(2):
        shutil.copy(manifest["path"][i], tmp_path)
    assert len(api.score(run, tmp_path, tmp_path / "out", maps="none")) == 2


def test_maps_of_slices_are_put_back_where_they_came_from(manifest: pd.DataFrame, tmp_path: Path) -> None:
    """A method whose map is the image itself gives back the volume."""
    import torch

    from loligo.methods.configs import MethodConfig
    from loligo.methods.contract import Method
    from loligo.runs.settings import Settings
    from loligo.types import Scores

    class Mirror(Method):
        def forward(self, x: torch.Tensor) -> Scores:
            return Scores(x.mean((1, 2, 3)), x[:, :1])

    rows = manifest[manifest["split"] == "test"].reset_index(drop=True)
    for axis, aspect, size in (("axial", "squash", 24), ("coronal", "pad", 24), ("sagittal", "squash", 24)):
        data = cache.load(rows, Preprocessing(size, aspect, axis))
        calibration = Calibration.fit([1.0, 2.0, 3.0])
        settings = Settings.of("gaussian", "tiny", None, None, None)
        detector = Detector(Mirror(MethodConfig(size=size)), settings, data.preprocessing, calibration=calibration)
        found = list(detector.predictions(data, batch_size=7))
        assert len(found) == 4
        for path, prediction in zip(rows["path"], found, strict=True):
            nifti.write(tmp_path / "map.nii.gz", prediction.map, prediction.geometry)
            back, own = nifti.read(tmp_path / "map.nii.gz"), nifti.read(Path(path))
            np.testing.assert_allclose(back.affine, own.affine, atol=1e-4)
            a, b = planes.slices(back.voxels, axis), planes.slices(own.voxels, axis)
            assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.97  # but for resizing and the window
