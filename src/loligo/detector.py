"""A trained method with all that turns images into predictions: preprocessing, calibration, precision and device.

Whoever has images and wants predictions has a `Detector`: the command line, reports, sheets, the benchmark, the
estimator for scikit-learn. It writes nothing but by `Detector.save`, prints nothing and caches nothing.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from loligo import progress as bars
from loligo.calibration import Calibration
from loligo.config import PreprocessingConfig, TrainConfig
from loligo.data import checks
from loligo.data.arrays import Given, from_images
from loligo.data.dataset import Dataset
from loligo.data.preprocessing import Preprocessing
from loligo.data.reference import Reference
from loligo.io import planes, regions
from loligo.runs import exported
from loligo.runs.run import Run
from loligo.runs.settings import FALSE_ALARM_RATE, HELD_OUT, Settings
from loligo.sessions import Session
from loligo.training import images as stored
from loligo.types import Prediction, Scored, Scores

if TYPE_CHECKING:
    from torch import Tensor

    from loligo.methods.contract import Method
    from loligo.nn.precision import Resolved

Floats = npt.NDArray[np.float32]
Images = Sequence[Given] | Given
LEAST_HELD_OUT = 4
"""Normal images that are held out to calibrate on at least, or half where there are fewer than twice as many."""


class Detector:
    """A trained method, ready to score."""

    def __init__(
        self,
        method: Method | Session,
        settings: Settings,
        preprocessing: Preprocessing,
        *,
        precision: Resolved = "float32",
        device: str = "auto",
        calibration: Calibration | None = None,
        reference: Reference | None = None,
    ) -> None:
        """Make ``method`` fast: folded, packed, in its dtype, without gradients; the one given stays as it is."""
        self.method, self.settings, self.preprocessing, self.precision = method, settings, preprocessing, precision
        self._calibration = calibration
        self.reference = reference
        """What is remembered of the training images; None where that is not known."""
        if isinstance(method, Session):
            return
        from loligo.nn.conv import packed  # here: an exported model is scored without torch
        from loligo.nn.precision import dtype_of, pick_device

        self.device = pick_device(device)
        self.dtype = dtype_of(precision, self.device)
        self.network = packed(method, self.dtype, self.device).freeze()

    @classmethod
    def load(cls, run: str | Path | Run, device: str = "auto", false_alarm_rate: float | None = None) -> Self:
        """Read a run folder, a `Run`, or an exported model (.onnx, .xml), at another false-alarm rate if one is given.

        It scores in the precision that the run was calibrated in. Raises ValueError, which names the file, where the
        folder is no run, its training is not finished, or a file is not whole; ImportError where what computes an
        exported model is not installed.
        """
        if not isinstance(run, Run) and exported.is_model(run):
            return cls._exported(Path(run), device, false_alarm_rate)
        run = run if isinstance(run, Run) else Run.load(run)
        calibration = Calibration.load(run.files.calibration)
        if false_alarm_rate is not None:
            calibration = calibration.at(false_alarm_rate)
        reference = Reference.load(run.files.reference) if run.files.reference.is_file() else None
        return cls.of(run, run.model(), device, calibration, reference)

    @classmethod
    def _exported(cls, path: Path, device: str, false_alarm_rate: float | None) -> Self:
        if device not in ("auto", "cpu"):
            raise ValueError(f"device is {device!r}; an exported model such as {path} is computed on cpu (or auto)")
        found = exported.read(path)
        return cls(
            Session.open(path, found.run.method_config, found.volume_score, found.slice_filter),
            found.run,
            found.run.preprocess(),
            calibration=found.calibration if false_alarm_rate is None else found.calibration.at(false_alarm_rate),
            reference=found.reference,
        )

    @classmethod
    def of(
        cls,
        run: Run,
        method: Method,
        device: str = "auto",
        calibration: Calibration | None = None,
        reference: Reference | None = None,
    ) -> Self:
        """Return the detector of a run with a method in any state, such as that of an epoch."""
        return cls(
            method,
            run,
            run.preprocess(),
            precision=run.precision,
            device=device,
            calibration=calibration,
            reference=reference,
        )

    @classmethod
    def fit(
        cls,
        method: str,
        images: Images,
        *,
        calibration: Images | None = None,
        abnormal: Images | None = None,
        preset: str | None = None,
        train: TrainConfig | dict[str, Any] | None = None,
        preprocessing: PreprocessingConfig | dict[str, Any] | None = None,
        false_alarm_rate: float = FALSE_ALARM_RATE,
        progress: bool = False,
        **options: Any,
    ) -> Self:
        """Train a method on normal images in memory, and calibrate it on others.

        ``images`` are arrays (H, W) or one of (N, H, W), `Image`s, or paths; integers are scaled by the range of their
        type, floats lie in [0, 1]. Where no ``calibration`` images are given, a tenth is held out, drawn by
        ``train.seed``. Weakly supervised methods need ``abnormal`` images, too. ``options`` are those of the method,
        ``train`` those of `TrainConfig`. Raises ValueError for unknown names, unfit images or too few of them.
        """
        import torch

        from loligo.nn.precision import pick_device, resolve
        from loligo.training import loop

        settings = Settings.of(method, preset, options, train, preprocessing, false_alarm_rate)
        if settings.train.devices > 1:
            raise ValueError(f"train.devices is {settings.train.devices}; images in memory are trained on by 1 process")
        preprocess = settings.preprocess()
        normals = from_images(images, preprocess)
        if calibration is None:
            normals, held_out = _hold_out(normals, settings.train.seed)
        else:
            held_out = from_images(calibration, preprocess)
        torch.manual_seed(settings.train.seed)
        model = settings.new_model()
        precision = resolve(settings.train.precision, pick_device(settings.train.device))
        others = None if abnormal is None else from_images(abnormal, preprocess)
        loop.fit(model, normals, settings.train, precision=precision, progress=progress, abnormal=others)
        reference = Reference.of(normals, held_out, others)
        detector = cls(
            model.eval(), settings, preprocess, precision=precision, device=settings.train.device, reference=reference
        )
        return detector.with_calibration(detector.calibrate(held_out))

    def save(self, folder: str | Path) -> Run:
        """Write a run folder, which `load` and the command line read.

        Raises ValueError where a run stands there already, and for an exported model, which is a file already.
        """
        if isinstance(self.method, Session):
            raise ValueError(f"{self.method.path} is exported already; copy it with the files beside it")
        run = Run.new(folder, self.settings)
        if run.begun:
            raise ValueError(f"{folder} holds a run already; choose another folder, or remove it")
        run.about.update({"precision": self.precision, "data": self._about_data()})
        run.save_model(self.method)
        run.save()
        if self.reference:
            self.reference.save(run.files.reference)
        self.calibration.save(run.files.calibration)
        return run

    def _about_data(self) -> dict[str, Any]:
        about = dict(self.settings.about["data"]) if isinstance(self.settings, Run) else {}
        spacing = {"spacing": list(self.preprocessing.spacing)} if self.preprocessing.spacing else {}
        return (
            about
            | spacing
            | self.preprocessing.headers.written()
            | {"false_alarm_rate": self.calibration.false_alarm_rate}
        )

    @property
    def calibration(self) -> Calibration:
        """What normals that were held out say of raw scores."""
        if self._calibration is None:
            raise ValueError(
                "this detector is not calibrated; use calibrate on normal images that training did not see"
            )
        return self._calibration

    def with_calibration(self, calibration: Calibration) -> Self:
        """Return this detector with another calibration."""
        other = copy.copy(self)
        other._calibration = calibration
        return other

    def images(self, rows: pd.DataFrame, strict: bool = False) -> Dataset:
        """Load manifest rows as the method sees them, with all their warnings, through the cache.

        See `data.cache.load`.
        """
        return self.checked(stored.load(self.settings, rows, strict=strict))

    def checked(self, data: Dataset) -> Dataset:
        """Add the warnings that follow from the training images and their headers; see `data.checks`."""
        none = ((),) * len(data.rows)
        known = self.reference.warnings(data) if self.reference else none
        headers = (self.preprocessing.headers.reasons(one.source) for one in data.geometries)
        every = zip(data.warnings or none, known, headers, strict=True)
        return replace(data, warnings=tuple(checks.ordered(*names) for names in every))

    def predict(self, images: Images, batch_size: int = 16) -> list[Prediction]:
        """Return a prediction for each image: arrays (H, W) or one of (N, H, W), `Image`s, volumes, or paths.

        Integers are scaled by the range of their type, floats must lie in [0, 1]. Raises ValueError, which names the
        image by its file or its place, for one that cannot be used. `predictions` takes a `Dataset` piece by piece.
        """
        return list(self.predictions(self.checked(from_images(images, self.preprocessing)), batch_size))

    def __call__(self, x: Tensor) -> Scores:
        """Score a batch (N, C, S, S) float32 in [0, 1]; results are float32 on the CPU."""
        import torch

        from loligo.nn.precision import autocast

        with torch.inference_mode(), autocast(self.device, self.dtype):
            scores = self.network(x.to(self.device).contiguous(memory_format=torch.channels_last))
            return Scores(*(None if part is None else part.float().cpu() for part in scores))  # type: ignore[arg-type]

    def score(self, x: Floats) -> Scored:
        """Score a batch (N, C, S, S) float32 in [0, 1] of arrays; results are float32."""
        if isinstance(self.method, Session):
            return self.method(x)
        import torch

        found = self(torch.from_numpy(x))
        return Scored(*(None if part is None else part.numpy() for part in found))  # type: ignore[arg-type]

    def batches(
        self, data: Dataset, batch_size: int = 16, progress: bool = False
    ) -> Iterator[tuple[npt.NDArray[np.int64], Floats, Scored]]:
        """Yield (indices, images, scores) of all images of a data set in order."""
        with bars.bar(total=len(data), desc="scoring", unit="image", show=progress) as bar:
            for start in range(0, len(data), batch_size):
                indices = np.arange(start, min(start + batch_size, len(data)))
                x = data.images(indices)
                yield indices, x, self.score(x)
                bar.update(len(indices))

    def scores(self, data: Dataset, batch_size: int = 16, progress: bool = False) -> npt.NDArray[np.float64]:
        """Return the raw score of each row (R,); see `by_row`."""
        found = [scores.image.astype(np.float64) for *_, scores in self.batches(data, batch_size, progress)]
        return self.by_row(np.concatenate(found), data)

    def by_row(self, scores: npt.NDArray[np.float64], data: Dataset) -> npt.NDArray[np.float64]:
        """Return the score of each row (R,) by those of its images (N,).

        That of a volume is the mean over its slices that hold tissue, so that air above the head counts for nothing,
        or the maximum over all.
        """
        begin = np.flatnonzero(np.diff(data.row_of, prepend=-1))[1:]
        parts = zip(np.split(scores, begin), np.split(data.tissue, begin), strict=True)
        return np.array([self._over_slices(*part) for part in parts])

    def _over_slices(self, scores: npt.NDArray[np.float64], tissue: npt.NDArray[np.bool_]) -> float:
        return rounded(scores.max() if self.method.volume_score == "max" else scores[tissue].mean())

    def calibrate(self, normals: Dataset, false_alarm_rate: float | None = None) -> Calibration:
        """Return what normals say, which neither training nor any limit of the method has seen."""
        rate = self.settings.false_alarm_rate if false_alarm_rate is None else false_alarm_rate
        return Calibration.of(*self.measure(normals), rate)

    def measure(self, normals: Dataset) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the raw score of each row (R,), and how hot the hottest place of its map is, if it has one.

        Copies of a file count once: they tell no more of normal images than one of them.
        """
        normals = normals.distinct()
        found: list[float] = []
        peaks: list[float] = []
        for geometry, (score, heat, _) in zip(normals.geometries, self._rows(normals, 16, progress=False), strict=True):
            found.append(score)
            if heat is not None:
                whole = normals.counts is None and self.preprocessing.aspect == "squash"
                peaks.append(regions.peak(heat if whole else self.preprocessing.restore(heat, geometry)))
        return np.array(found), np.array(peaks)

    def predictions(self, data: Dataset, batch_size: int = 16, progress: bool = False) -> Iterator[Prediction]:
        """Yield a prediction for each row of a data set, in order; memory holds one batch, or one volume."""
        calibration = self.calibration
        warnings, rows = data.warnings or ((),) * len(data.rows), self._rows(data, batch_size, progress)
        for geometry, names, (score, heat, image) in zip(data.geometries, warnings, rows, strict=True):
            if not math.isfinite(score):
                raise ValueError(f"{geometry.source or 'an image'}: its score is not a number; train the method anew")
            yield Prediction(
                score=score,
                p_value=float(calibration.p_value([score])[0]),
                flag=score >= calibration.threshold,
                anomaly_score=float(calibration.anomaly_score([score])[0]),
                warnings=names,
                geometry=geometry,
                network_map=heat,
                network_reconstruction=image,
                restore=self.preprocessing.restore,
            )

    def _rows(
        self, data: Dataset, batch_size: int, progress: bool
    ) -> Iterator[tuple[float, Floats | None, Floats | None]]:
        """Yield raw score, map and reconstruction of each row, on the network's grid; a volume's once it is whole."""
        counts = data.counts or (1,) * len(data.rows)
        row, first, waiting = 0, 0, _Waiting()
        for _, _, scores in self.batches(data, batch_size, progress):
            waiting.add(scores)
            while row < len(counts) and len(waiting.image) >= counts[row]:
                image, heat, reconstruction = waiting.take(counts[row])
                score = self._over_slices(image.astype(np.float64), data.tissue[first : first + counts[row]])
                if data.counts is None:
                    yield score, _first(heat), _first(reconstruction)
                else:
                    yield score, None if heat is None else self._across(heat[:, 0]), None
                row, first = row + 1, first + counts[row]

    def _across(self, maps: Floats) -> Floats:
        """Return a volume's map (N, H, W) by those of its slices, one after another."""
        sides = self.method.slice_filter
        return planes.smoothed(maps, *sides) if sides else maps


def load(run: str | Path | Run, device: str = "auto", false_alarm_rate: float | None = None) -> Detector:
    """Return the detector of a run folder or an exported model, as `Detector.load` does."""
    return Detector.load(run, device, false_alarm_rate)


class _Waiting:
    """Scores of images whose row is not whole yet."""

    def __init__(self) -> None:
        self.image = np.empty(0, np.float32)
        self.parts: list[Floats | None] = [None, None]

    def add(self, scores: Scored) -> None:
        """Append those of a batch."""
        before = self.parts if len(self.image) else [None, None]
        self.image = np.concatenate([self.image, scores.image])
        both = zip(before, (scores.map, scores.reconstruction), strict=True)
        self.parts = [new if old is None or new is None else np.concatenate([old, new]) for old, new in both]

    def take(self, count: int) -> tuple[Floats, Floats | None, Floats | None]:
        """Return the first ones and keep the others."""
        image, self.image = self.image[:count], self.image[count:]
        first = [None if part is None else part[:count] for part in self.parts]
        self.parts = [None if part is None else part[count:] for part in self.parts]
        return image, first[0], first[1]


def rounded(score: float) -> float:
    """Return a raw score with as many digits as float32 holds, so that a table of scores holds just that number."""
    return float(f"{score:.7g}")


def _first(part: Floats | None) -> Floats | None:
    """Return the first channel of an image's part (1, C, S, S), apart from its batch, so that this can go."""
    return None if part is None else part[0, 0].copy()


def part_held_out(part: float, count: int) -> float:
    """Return what part of ``count`` normals is held out where ``part`` is asked for."""
    return max(part, min(LEAST_HELD_OUT, count // 2) / count)


def _hold_out(normals: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """Split a data set in memory into images to learn from and a tenth to calibrate on."""
    count = len(normals.rows)
    if count < 2:
        raise ValueError(
            "1 image is too few to train and to calibrate on; give more, or calibration images of their own"
        )
    order = np.random.default_rng(seed).permutation(count)
    held = round(part_held_out(HELD_OUT, count) * count)
    return normals.subset(np.sort(order[held:])), normals.subset(np.sort(order[:held]))
