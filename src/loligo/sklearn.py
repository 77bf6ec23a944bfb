"""An estimator for scikit-learn and PyOD: any method of loligo in a pipeline or a grid search.

Signs and attributes are PyOD's: `AnomalyDetector.decision_function` is higher for more abnormal images (scikit-learn's
own outlier detectors have it the other way round), and predictions are 0 (normal) and 1 (abnormal).
"""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted

from loligo import methods
from loligo.detector import Detector
from loligo.names import nearest
from loligo.types import Image

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class AnomalyDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Learn from normal images; score new ones.

    X is (N, H, W) or (N, 1, H, W), integers of their type's full range or floats in [0, 1], or a list of paths.
    """

    def __init__(
        self,
        method: str = "padim",
        *,
        preset: str | None = None,
        train: dict[str, Any] | None = None,
        preprocessing: dict[str, Any] | None = None,
        false_alarm_rate: float = 0.05,
        **options: Any,
    ) -> None:
        """Choose a method, and options of its own, of its training and its preprocessing; see `Detector.fit`."""
        self.method, self.preset, self.train, self.preprocessing = method, preset, train, preprocessing
        self.false_alarm_rate = false_alarm_rate
        self.options = options

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return all parameters, the options of the method among them."""
        return {**super().get_params(deep), **self.options}

    def set_params(self, **params: Any) -> Self:
        """Set parameters; ValueError, with the nearest name, for one that neither this class nor the method has."""
        own = super().get_params(deep=False)
        method = params.get("method", self.method)
        known = {field.name for field in dataclasses.fields(methods.get(method).Config)}
        for name, value in params.items():
            if name in own:
                setattr(self, name, value)
            elif name in known:
                self.options = {**self.options, name: value}
            else:
                raise ValueError(f"{method} has no parameter {name!r}; {nearest(name, known | own.keys())}")
        return self

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train and calibrate on normal images; where labels ``y`` (N,) are given, on those labelled 0 alone.

        A weakly supervised method is given the others, too. A tenth of the normal ones is held out for the threshold.
        Afterwards ``decision_scores_`` (N,) are the scores of X, ``threshold_`` that from which an image is called
        abnormal, and ``labels_`` (N,) are 0 and 1.
        """
        images = _images(X)
        labels = [False] * len(images) if y is None else [bool(label) for label in np.asarray(y)]
        normals, others = ([i for i, label in zip(images, labels, strict=True) if label == k] for k in (False, True))
        self.detector_ = Detector.fit(
            self.method,
            normals,
            abnormal=others if others and methods.weakly_supervised(self.method) else None,
            preset=self.preset,
            train=self.train,
            preprocessing=self.preprocessing,
            false_alarm_rate=self.false_alarm_rate,
            **self.options,
        )
        self.threshold_ = self.detector_.calibration.threshold
        self.decision_scores_ = self.decision_function(images)
        self.labels_ = self._called(self.decision_scores_)
        return self

    def decision_function(self, X: Any) -> Floats:
        """Return the raw scores (N,) float64, higher for more abnormal images."""
        check_is_fitted(self)
        return np.array([prediction.score for prediction in self.detector_.predict(_images(X))])

    def predict(self, X: Any) -> Ints:
        """Return 1 for images whose score reaches the threshold, else 0: (N,) int64."""
        return self._called(self.decision_function(X))

    def predict_proba(self, X: Any) -> Floats:
        """Return (N, 2): one minus the anomaly score, and the anomaly score, a sigmoid of the standardised score."""
        anomaly = self.detector_.calibration.anomaly_score(self.decision_function(X))
        return np.stack([1 - anomaly, anomaly], axis=1)

    def p_value(self, X: Any) -> Floats:
        """Return the p-values (N,) against the normals that were held out."""
        return self.detector_.calibration.p_value(self.decision_function(X))

    def fit_predict(self, X: Any, y: Any = None) -> Ints:
        """Fit, and return ``labels_``."""
        return self.fit(X, y).labels_

    def _called(self, scores: Floats) -> Ints:
        return (scores >= self.threshold_).astype(np.int64)


def _images(X: Any) -> list[Any]:
    """Return what `Detector` takes, one an image."""
    if isinstance(X, list | tuple) and X and not isinstance(X[0], np.ndarray):
        return list(X)
    stack = np.asarray(X)
    if stack.dtype.kind in "OU":
        return [item if isinstance(item, Image) else str(item) for item in stack.ravel()]
    if stack.ndim == 4 and stack.shape[1] == 1:
        stack = stack[:, 0]
    if stack.ndim != 3:
        raise ValueError(f"X has shape {stack.shape}; (N, H, W), (N, 1, H, W) or a list of paths is allowed")
    return list(stack)
