"""Turn raw scores into p-values, scores in [0, 1] and a threshold, by normal images that were held out of training."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, expit, ndtri

from loligo.config import check_forms, one_line
from loligo.files import write_json

Floats = npt.NDArray[np.float64]

TAIL = 0.95
"""Quantile of the peaks of normal images' maps from which a place is drawn in the hottest colour."""
NARROWEST = 0.05
"""Least range of colours, as a part of the typical peak: where all normals peak alike, a hair is no anomaly."""

FEW, MOST, APART, SURE = 10, 0.5, 0.8, 1e-4
"""Images of which nothing is said as a whole; part of them whose flags are remarkable; chance that one of them scores
higher than a normal image of the calibration, from which they are apart, and how sure that must be."""

CONFIDENCE = 0.95
"""Of the interval of the false-alarm rate."""

FORMS: dict[str, type] = {
    "scores": list,
    **dict.fromkeys(("folds", "shifted_by"), int),
    **dict.fromkeys(("false_alarm_rate", "typical_peak", "map_scale"), float),
}
"""What a file of it holds, for `check_forms`."""


@dataclass(frozen=True)
class Calibration:
    """What held-out normal images say of raw scores."""

    scores: Floats
    """(n,) raw scores of the calibration normals, ascending."""
    false_alarm_rate: float
    """Proportion of normal images that the threshold calls abnormal, at most; never below 1 / (n + 1)."""
    typical_peak: float = 0.0
    """Heat at the hottest place of a typical normal image, or volume: no colour up to it."""
    map_scale: float = 1.0
    """What at most 1 in 20 of them reach anywhere (`TAIL`): the hottest colour from there; above `typical_peak`."""
    folds: int = 0
    """Models that scored them, each those that it did not see (`cross_calibration`); 0 where they were held out."""
    shifted_by: int = 0
    """Normals of another site to whose mean the scores were moved (`shifted`); 0 where they stand as found."""

    @classmethod
    def of(cls, scores: Floats, peaks: Floats, false_alarm_rate: float, folds: int = 0) -> Calibration:
        """Calibrate on scores (n,) and peaks (n,) of maps of normals, as `Detector.measure` gives them; see `fit`."""
        found = replace(cls.fit(scores, false_alarm_rate), folds=folds)
        return found.with_peaks(peaks) if len(peaks) else found

    @classmethod
    def fit(cls, scores: npt.ArrayLike, false_alarm_rate: float = 0.05) -> Calibration:
        """Calibrate on raw scores (n,) of normals; with few of them the rate rises to the attainable 1 / (n + 1).

        Raises ValueError for no scores, scores that are not finite, or a rate outside (0, 1).
        """
        values = np.sort(np.asarray(scores, dtype=np.float64).ravel())
        if not len(values):
            raise ValueError("there are no calibration scores; hold some normal images out of training")
        if not np.isfinite(values).all():
            raise ValueError(f"{(~np.isfinite(values)).sum()} of {len(values)} calibration scores are not finite")
        if not 0 < false_alarm_rate < 1:
            raise ValueError(f"false_alarm_rate is {false_alarm_rate}; it must lie between 0 and 1")
        return cls(values, max(false_alarm_rate, 1 / (len(values) + 1)))

    def at(self, false_alarm_rate: float) -> Calibration:
        """Return the same calibration at another false-alarm rate; nothing needs to be trained or scored for it."""
        return replace(self, false_alarm_rate=self.fit(self.scores, false_alarm_rate).false_alarm_rate)

    def shifted(self, scores: npt.ArrayLike) -> Calibration:
        """Return this calibration with its scores moved so that their mean is that of ``scores`` (m,).

        For a few normals of another site: p-values go as low as the scores of this calibration allow, not as low as m
        do. That holds where the other site moves the scores of normals and does not spread them, which no test of so
        few shows: it is an assumption, and there is no guarantee without it. Copies are to be left out before.
        """
        values = self.fit(scores).scores
        by = len(values)
        return replace(self, scores=np.sort(self.scores + (values.mean() - self.mean)), folds=0, shifted_by=by)

    def with_peaks(self, peaks: npt.ArrayLike) -> Calibration:
        """Return the same calibration with the colours of maps set by the peaks (n,) of normal images' maps."""
        values = np.asarray(peaks, dtype=np.float64)
        typical, tail = float(np.median(values)), float(np.quantile(values, TAIL, method="higher"))
        return replace(self, typical_peak=typical, map_scale=max(tail, typical + (NARROWEST * abs(typical) or 1.0)))

    def heat(self, maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return maps, float32 of any shape, in parts of the colours' range: 0 at the typical peak, 1 at the tail."""
        found: npt.NDArray[np.float32] = (maps - np.float32(self.typical_peak)) / np.float32(
            self.map_scale - self.typical_peak
        )
        return found

    @property
    def mean(self) -> float:
        """Return the mean raw score; of equal scores exactly that score."""
        return float(np.clip(self.scores.mean(), self.scores[0], self.scores[-1]))

    @property
    def std(self) -> float:
        """Return the standard deviation of raw scores; 1 where they are all equal."""
        return 1.0 if self.scores[0] == self.scores[-1] else float(self.scores.std())

    @property
    def threshold(self) -> float:
        """Return the smallest raw score whose p-value is at most the false-alarm rate.

        It is the next float above a calibration score: at most ``k - 1`` calibration normals lie at or above it, where
        ``k / (n + 1)`` is the largest attainable p-value within the rate (split conformal prediction).
        """
        last = self.scores[len(self.scores) - self._rank]
        return float(max(np.nextafter(last, np.inf), last + np.finfo(np.float64).tiny))  # no denormal: they are flushed

    @property
    def _rank(self) -> int:
        """Return k of the largest p-value k / (n + 1) within the false-alarm rate, at least 1."""
        return math.floor(self.false_alarm_rate * (len(self.scores) + 1) * (1 + 1e-12))

    @property
    def expected(self) -> float:
        """Return the false-alarm rate of the threshold in the mean over calibrations like this one: k / (n + 1)."""
        return self._rank / (len(self.scores) + 1)

    @property
    def interval(self) -> tuple[float, float]:
        """Return between what the threshold's false-alarm rate lies, given just these n normals, with `CONFIDENCE`.

        Of new normals like them it is distributed as Beta(k, n + 1 - k) over calibrations, and is lower where scores
        tie (Vovk, "Conditional validity of inductive conformal predictors", ACML 2012). Of `shifted` scores each end is
        that of the threshold moved by as much as the shift may err; of `folds` both are approximate, as their scores
        depend on each other.
        """
        n, found = len(self.scores), []
        slip = self.std * math.sqrt(1 / self.shifted_by + 1 / n) if self.shifted_by else 0.0
        for tail in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2):
            limit = self.threshold - float(ndtri(tail)) * slip
            more = int((self.scores >= limit).sum() - (self.scores >= self.threshold).sum())
            rank = min(max(self._rank + more, 1), n)
            found.append(float(betaincinv(rank, n + 1 - rank, tail)))
        return found[0], found[1]

    @property
    def told(self) -> str:
        """Say in words what the threshold flags, with the interval: it stands wherever a threshold is shown."""
        low, high = self.interval
        like = f"{len(self.scores)} normals of the calibration"
        like += f", moved to the mean of {self.shifted_by} of this site" if self.shifted_by else ""
        return (
            f"flags {100 * self.expected:.2g} % of normals like the {like}"
            f" ({100 * CONFIDENCE:g} % interval {100 * low:.2g} to {100 * high:.2g} %)"
        )

    def p_value(self, scores: npt.ArrayLike) -> Floats:
        """Return (1 + number of calibration normals at or above the score) / (n + 1), for raw scores (N,)."""
        below = np.searchsorted(self.scores, _numbers(scores), side="left")
        found: Floats = (1 + len(self.scores) - below) / (len(self.scores) + 1)
        return found

    def anomaly_score(self, scores: npt.ArrayLike) -> Floats:
        """Return A = sigmoid((s - mean) / std) in [0, 1]: SQUID's 1 - sigmoid((D - mean) / std) where s = -D."""
        found: Floats = expit((_numbers(scores) - self.mean) / self.std)
        return found

    def remark(self, scores: npt.ArrayLike) -> str:
        """Say where raw scores (N,) as a whole are not like those of the normals; empty where they may well be."""
        values = _numbers(scores)
        flagged, count = int((values >= self.threshold).sum()), len(values)
        if count < FEW:
            return ""
        why = (
            "compare view, exposure, bit depth and cropping with the training images, or give normals of this site to"
            " 'loligo recalibrate'"
        )
        if flagged > MOST * count:
            return f"{flagged} of {count} images are flagged, more than disease explains: {why}"
        from scipy.stats import mannwhitneyu  # here: it imports slowly, and one prediction needs it not

        found = mannwhitneyu(values, self.scores)
        above = float(found.statistic) / (count * len(self.scores))
        if found.pvalue > SURE or 1 - APART < above < APART:
            return ""
        way = "higher" if above > 0.5 else "lower"
        return f"these images as a whole score {way} than the normal ones of the calibration: {why}"

    def save(self, path: Path) -> None:
        """Write its `record` as JSON."""
        write_json(self.record(), path)

    def record(self) -> dict[str, Any]:
        """Return what JSON holds of it; mean, std, threshold and its interval stand there for readers alone."""
        return {
            "scores": self.scores.tolist(),
            "false_alarm_rate": self.false_alarm_rate,
            "typical_peak": self.typical_peak,
            "map_scale": self.map_scale,
            "folds": self.folds,
            "shifted_by": self.shifted_by,
            "mean": self.mean,
            "std": self.std,
            "threshold": self.threshold,
            "false_alarm_interval": self.interval,
        }

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what `save` wrote; ValueError, which names the file, where there is none or it cannot be read."""
        if not path.is_file():
            raise ValueError(f"{path} is missing: the training of this run was not finished; run it again")
        try:
            return cls.recorded(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not a calibration ({one_line(error)}); train the run again") from error

    @classmethod
    def recorded(cls, values: Any) -> Calibration:
        """Return the calibration of a `record`; ValueError where it is none."""
        try:
            check_forms(values, FORMS)
            if not all(isinstance(score, (int, float)) for score in values["scores"]):
                raise ValueError("not all scores are numbers")
            fitted = cls.fit(values["scores"], values["false_alarm_rate"])
            typical, scale = float(values["typical_peak"]), float(values["map_scale"])
            if not -math.inf < typical < scale < math.inf:
                raise ValueError(f"map_scale is {scale}; it must lie above typical_peak, {typical}")
            counts = {name: values.get(name, 0) for name in ("folds", "shifted_by")}
            if min(counts.values()) < 0:
                raise ValueError(f"a count is below 0: {counts}")
            return replace(fitted, typical_peak=typical, map_scale=scale, **counts)
        except (TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ValueError(str(error)) from error


def q_values(p_values: npt.ArrayLike) -> Floats:
    """Return for each p-value (N,) of a worklist the least false-discovery rate at which its image is flagged: (N,).

    Of the images with a q-value of at most 0.1, at most 10 % are normal in the mean over worklists, which is not the
    rate of false alarms among normal images (Benjamini & Hochberg 1995). Conformal p-values of one worklist share their
    calibration normals and so depend on each other, but positively (PRDS), under which the procedure holds (Bates et
    al., "Testing for outliers with conformal p-values", Annals of Statistics 2023); that is the mean over calibrations,
    too. With n calibration normals and N images no q-value of a single hit falls below N / (n + 1).
    """
    from scipy.stats import false_discovery_control

    found: Floats = np.asarray(false_discovery_control(np.asarray(p_values, np.float64), method="bh"), np.float64)
    return found


def outlook(count: int, false_alarm_rate: float, pool: int = 0) -> str:
    """Say what ``count`` normals to calibrate on can tell, and how many would do; empty where they suffice.

    ``pool`` is the number of normals in all, of which these are a part.
    """
    needed = math.ceil(1 / false_alarm_rate * (1 - 1e-12)) - 1
    if count >= needed:
        return ""
    more = f", some {math.ceil(needed / count * pool / 10) * 10} normal images in all" if pool else ""
    return (
        f"only {count} normal images to calibrate on: no p-value can fall below {1 / (count + 1):.2g}, and that is the"
        f" false-alarm rate instead of {false_alarm_rate:g}, which needs {needed}{more}"
    )


def _numbers(scores: npt.ArrayLike) -> Floats:
    """Return raw scores as float64; ValueError where one is NaN, which would rank as the most abnormal."""
    values = np.asarray(scores, dtype=np.float64)
    if count := int(np.isnan(values).sum()):
        raise ValueError(f"{count} of {values.size} scores are NaN; a raw score must be a number")
    return values
