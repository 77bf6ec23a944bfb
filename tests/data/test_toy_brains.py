"""Toy brains: what a mask says was changed is what changed, and brains are alike and not the same."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from loligo.data import brains, manifest, mood_anomalies, toy_brains
from loligo.data.brains import Template
from loligo.io import nifti

SIZE, SEEDS = 24, range(8)
COUNTS = {"train": 3, "calibration": 2, "validation": 1, "test_normal": 2, "test_abnormal": 7, "size": SIZE}


@pytest.fixture(scope="module")
def base() -> Template:
    """Make a stand-in for the template: an egg of grey and white folds, 4 mm a voxel."""
    x, y, z = np.mgrid[-24:25, -24:25, -24:25] * 4.0
    depth = np.sqrt((x / 75) ** 2 + (y / 90) ** 2 + (z / 70) ** 2)
    folds = 0.8 + 0.2 * np.sin(x / 9) * np.cos(y / 11) * np.sin(z / 8 + 1)
    return Template(np.where(depth < 1, folds, 0).astype(np.float32), 4.0, (24.0, 24.0, 24.0), SIZE)


@pytest.fixture
def real() -> Template:
    if importlib.util.find_spec("nilearn") is None:
        pytest.skip("no nilearn; pip install 'loligo[volumes]'")
    return brains.template(SIZE)


def twins(base: Template, kind: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a volume, its normal twin and the mask."""
    voxels, mask = toy_brains.generate(base, kind, np.random.default_rng(seed))
    normal, nothing = toy_brains.generate(base, "normal", np.random.default_rng(seed))
    assert not nothing.any()
    return voxels, normal, mask


def test_volumes_have_the_declared_form(base: Template) -> None:
    for kind in toy_brains.KINDS:
        voxels, mask = toy_brains.generate(base, kind, np.random.default_rng(0))
        assert (voxels.shape, voxels.dtype, mask.shape, mask.dtype) == ((SIZE,) * 3, np.float32, (SIZE,) * 3, bool)
        assert voxels.min() == 0 and 500 < np.median(voxels[voxels > 0]) < 1500


@pytest.mark.parametrize("kind", mood_anomalies.KINDS)
def test_only_the_mask_differs_from_the_normal_twin(base: Template, kind: str) -> None:
    for seed in SEEDS:
        voxels, normal, mask = twins(base, kind, seed)
        np.testing.assert_array_equal(voxels[~mask], normal[~mask])
        changed = (voxels != normal)[mask].mean()
        assert changed > 0.6, f"{kind} of seed {seed} changed {changed:.0%} of its mask"
        np.testing.assert_array_equal(voxels > 0, normal > 0)  # nothing is cut out of the brain
        assert ndimage.label(mask, np.ones((3, 3, 3)))[1] == 1


@pytest.mark.parametrize("kind", mood_anomalies.KINDS)
def test_a_mask_is_a_part_of_the_brain_of_the_declared_size(kind: str) -> None:
    ball = (np.linalg.norm(np.mgrid[:64, :64, :64] - 31.5, axis=0) < 28).astype(np.float32)
    ball *= 0.6 + 0.4 * (np.mgrid[:64, :64, :64].sum(axis=0) % 9 > 4)  # stripes, so that every change shows
    radii = []
    for seed in SEEDS:
        _, mask = mood_anomalies.insert(ball, kind, np.random.default_rng(seed))
        assert (ball[mask] > 0).all()
        radii.append((mask.sum() * 3 / 4 / np.pi) ** (1 / 3))
    low, high = (share * 56 for share in mood_anomalies.RADII)
    assert low * 0.7 < min(radii) < max(radii) < high * 1.5
    assert max(radii) > 1.2 * min(radii)


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first region be taken, however little is changed in it."""
    monkeypatch.setattr(mood_anomalies, "PLAIN", 0)


def planted(kind: str, seed: int, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Change cubes whose voxels hold their own x, y or z: (3, M) place and (3, M) what is seen there, of the mask."""
    ramps = np.stack(np.mgrid[:size, :size, :size]).astype(np.float32) + 1
    both = [mood_anomalies.insert(ramp, kind, np.random.default_rng(seed)) for ramp in ramps]
    mask = both[0][1]
    assert all((other == mask).all() for _, other in both)
    place, seen = ramps[:, mask], np.stack([after for after, _ in both])[:, mask]
    known = (seen > 0.5).all(axis=0)  # elsewhere it looked beyond the cube
    assert known.mean() > 0.5
    return place[:, known], seen[:, known]


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize("seed", SEEDS)
def test_each_kind_is_what_its_name_says(seed: int) -> None:
    place, seen = planted("uniform_addition", seed)
    step = (seen - place)[0]
    assert np.ptp(step) < 1e-5 and 0.15 <= abs(step[0]) <= 0.4
    place, seen = planted("noise_addition", seed)
    noise = (seen - place)[0]
    assert 0.05 < noise.std() < 0.4 and abs(noise.mean()) < 4 * noise.std() / noise.size**0.5
    place, seen = planted("uniform_shift", seed)
    assert np.ptp(seen - place, axis=1).max() < 1e-4
    assert 0.6 * mood_anomalies.SMALLEST < np.linalg.norm((seen - place)[:, 0]) < 1.4 * 0.1 * 32
    place, seen = planted("reflection", seed)
    turned = np.abs(seen - place).max(axis=1) > 1e-3
    assert turned.sum() == 1
    assert np.ptp((place + seen)[turned]) < 1e-4  # place and what is seen there have their middle in the centre


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(("kind", "sign"), [("sink_deformation", 1), ("source_deformation", -1)])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_sink_shows_what_lay_farther_out_and_a_source_what_lay_nearer(kind: str, sign: int, seed: int) -> None:
    place, seen = planted(kind, seed)
    centre = place[:, [np.linalg.norm(place - place.mean(axis=1, keepdims=True), axis=0).argmin()]]
    still = np.linalg.norm(seen - place, axis=0) < 1e-4
    centre = min((place[:, [i]] for i in np.flatnonzero(still)), key=lambda at: float(np.linalg.norm(at - centre)))
    before, after = np.linalg.norm(place - centre, axis=0), np.linalg.norm(seen - centre, axis=0)
    assert (sign * (after - before) > -1e-3).all() and (sign * (after - before)).max() > 0.3
    far = before > 0.5
    along = ((place - centre) * (seen - centre)).sum(axis=0)[far] / (before * np.maximum(after, 1e-6))[far]
    assert along.min() > 0.999  # along the ray from the centre


def test_a_ball_is_of_one_grey_and_of_the_declared_size(base: Template) -> None:
    fine = Template(base.voxels, base.spacing, base.centre, 48)
    anatomy = brains.anatomy(fine, np.random.default_rng(0))
    changed, mask = mood_anomalies.insert(anatomy, mood_anomalies.BALL, np.random.default_rng(1))
    assert set(changed[mask]) == {mood_anomalies.BALL_GREY} and (changed[~mask] == anatomy[~mask]).all()
    longest = max(np.ptp(np.nonzero(anatomy)[axis]) for axis in range(3)) + 1
    assert mask.sum() == pytest.approx(4 / 3 * np.pi * (mood_anomalies.BALL_RADIUS * longest) ** 3, rel=0.12)


def test_unknown_kinds_and_empty_anatomies_are_refused(base: Template) -> None:
    with pytest.raises(ValueError, match="kind is 'tumour'; allowed: normal, uniform_addition, noise_addition"):
        toy_brains.generate(base, "tumour", np.random.default_rng(0))
    with pytest.raises(ValueError, match="kind is 'normal'; allowed: uniform_addition"):
        mood_anomalies.insert(np.ones((9, 9, 9), np.float32), "normal", np.random.default_rng(0))
    with pytest.raises(ValueError, match="no room for an anomaly in 0 voxels of brain"):
        mood_anomalies.insert(np.zeros((9, 9, 9), np.float32), "reflection", np.random.default_rng(0))


def test_a_smooth_field_has_the_declared_scale() -> None:
    fields = np.stack([brains.smooth_field(32, 4, np.random.default_rng(seed)) for seed in range(60)])
    assert fields.dtype == np.float32
    assert fields.mean() == pytest.approx(0, abs=0.1) and fields.std() == pytest.approx(1, abs=0.1)
    rough = np.diff(fields, axis=1).std()
    assert 0.02 < rough < 0.3  # white noise would have 1.4


def test_deformation_does_not_fold() -> None:
    """Draw from templates that hold their own coordinates: the volume of each drawn voxel must stay above 0."""
    ramps = np.stack(np.mgrid[:97, :97, :97]).astype(np.float32) + 1
    for seed in range(6):
        grids = [Template(ramp, 4.0, (48.0, 48.0, 48.0), 48) for ramp in ramps]
        seen = [brains.anatomy(grid, np.random.default_rng(seed)) for grid in grids]
        steps = np.stack([np.stack(np.gradient(one)) for one in seen]) * 4 / (brains.FIELD_OF_VIEW / 48)
        volumes = np.linalg.det(np.moveaxis(steps, (0, 1), (-2, -1)))
        assert 0.2 < volumes.min() < 1 < np.median(volumes) < 1.8  # the template is larger than what is drawn


def test_brains_of_the_template_are_alike_and_not_the_same(real: Template) -> None:
    drawn = [toy_brains.generate(real, "normal", np.random.default_rng(seed))[0] for seed in range(8)]
    litres = [np.count_nonzero(voxels) * (brains.FIELD_OF_VIEW / SIZE) ** 3 / 1e6 for voxels in drawn]
    assert 1.0 < min(litres) < max(litres) < 2.1
    z = [(voxels - voxels.mean()) / voxels.std() for voxels in drawn]
    alike = [float((a * b).mean()) for i, a in enumerate(z) for b in z[:i]]
    assert min(alike) > 0.75 and max(alike) < 0.97
    for voxels in drawn:  # within the field of view, and upright: the cerebellum and the stem are below and behind
        assert not any(np.take(voxels, edge, axis).any() for axis in range(3) for edge in (0, -1))
        assert voxels[..., : SIZE // 4].sum(axis=(0, 2))[: SIZE // 2].sum() > 0
        width = (voxels > 0).any(axis=(1, 2)).sum()
        assert width < (voxels > 0).any(axis=(0, 2)).sum()


def test_without_nilearn_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install nilearn"):
        toy_brains.write(tmp_path / "set", **COUNTS | {"size": 99})  # of which no template was kept
    assert not (tmp_path / "set").exists()
    with pytest.raises(ValueError, match="size 7: a brain needs 8 voxels a side or more"):
        brains.template(7)


def test_the_template_is_found_without_importing_nilearn(real: Template) -> None:
    assert "nilearn" not in sys.modules
    assert real.spacing == 1 and real.voxels.max() < 1.4


@pytest.fixture
def small(base: Template, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brains, "template", lambda size: base)


@pytest.mark.usefixtures("small")
def test_a_set_is_written_with_its_manifest(tmp_path: Path) -> None:
    frame = toy_brains.write(tmp_path / "set", **COUNTS)
    assert frame.groupby(["split", "label"]).size().to_dict() == {
        ("calibration", 0): 2,
        ("test", 0): 2,
        ("test", 1): 7,
        ("train", 0): 3,
        ("validation", 0): 1,
    }
    abnormal = frame[frame["label"] == 1]
    assert abnormal["kind"].tolist() == [*mood_anomalies.KINDS, mood_anomalies.KINDS[0]]
    assert frame["patient"].is_unique and set(frame["source"]) == {"toy_brains"}
    for row in frame.itertuples():
        volume = nifti.read(Path(str(row.path)))
        assert volume.shape == (SIZE,) * 3 and volume.file_axes == ("R", "A", "S")
        assert volume.spacing == pytest.approx((brains.FIELD_OF_VIEW / SIZE,) * 3)
        middle = volume.affine @ ([(SIZE - 1) / 2] * 3 + [1])
        np.testing.assert_allclose(middle[:3], 0, atol=1e-5)
        if row.label:
            assert nifti.read_mask(Path(str(row.mask)), volume).any()
        else:
            assert row.mask == ""
    nifti.check_spacing(nifti.read_header(Path(path)) for path in frame["path"])


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*.nii.gz"))}


@pytest.mark.usefixtures("small")
def test_the_same_seed_gives_the_same_bytes_however_many_are_drawn(tmp_path: Path) -> None:
    for name, given in {"a": {}, "b": {"train": 5}, "c": {"seed": 1}}.items():
        toy_brains.write(tmp_path / name, **COUNTS | given)
    a, b, c = (digests(tmp_path / name / "images") for name in "abc")
    assert a.items() < b.items() and len(set(b.values())) == len(b)
    assert a.keys() == c.keys() and not set(a.values()) & set(c.values())


@pytest.mark.usefixtures("small")
def test_balls_are_drawn_beside_the_six_kinds_and_change_none(tmp_path: Path) -> None:
    for name, balls in {"a": 0, "b": 2}.items():
        frame = toy_brains.write(tmp_path / name, **COUNTS, test_ball=balls)
    assert frame["kind"].tolist()[-2:] == ["ball", "ball"] and frame["label"].tolist()[-2:] == [1, 1]
    a, b = (digests(tmp_path / name / "images") for name in "ab")
    assert a.items() < b.items() and len(set(b.values())) == len(a) + 2


@pytest.mark.usefixtures("small")
def test_only_earlier_toy_brains_are_replaced(tmp_path: Path) -> None:
    toy_brains.write(tmp_path / "set", **COUNTS)
    assert len(toy_brains.write(tmp_path / "set", **COUNTS | {"train": 1})) == 13
    (tmp_path / "set" / "mine.txt").touch()
    with pytest.raises(FileExistsError, match=r"mine\.txt, not an earlier toy brains alone"):
        toy_brains.write(tmp_path / "set", **COUNTS)
    with pytest.raises(ValueError, match="test_abnormal is -1; 0 or more is allowed"):
        toy_brains.write(tmp_path / "other", **COUNTS | {"test_abnormal": -1})


@pytest.mark.usefixtures("small")
def test_the_experiment_makes_the_set_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from loligo import experiment

    write = toy_brains.write
    few = {name: count for name, count in COUNTS.items() if name != "size"}
    monkeypatch.setattr(toy_brains, "write", lambda folder, **given: write(folder, **few, **given))
    made = experiment.DATASETS["toy_brains"](tmp_path / "set", size=SIZE, seed=3)
    again = experiment.DATASETS["toy_brains"](tmp_path / "set")
    assert made.equals(again) and made.equals(manifest.read(tmp_path / "set" / "manifest.csv"))
