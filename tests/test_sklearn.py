"""The estimator within scikit-learn, and beside what PyOD asks of a detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from conftest import anatomy, swapped, write_images
from loligo.sklearn import AnomalyDetector

NORMAL = anatomy(60, 64)
NEW = np.concatenate([anatomy(12, 64, seed=1), swapped(anatomy(12, 64, seed=2))])
Y = np.repeat([0, 1], 12)


@pytest.fixture(scope="module")
def fitted() -> AnomalyDetector:
    return AnomalyDetector("gaussian", preset="tiny").fit(NORMAL)


def test_its_signs_and_attributes_are_those_of_pyod(fitted: AnomalyDetector) -> None:
    scores = fitted.decision_function(NEW)
    assert scores.shape == (24,)
    assert scores[12:].min() > np.median(scores[:12])  # higher is more abnormal
    assert fitted.decision_scores_.shape == (60,)
    np.testing.assert_array_equal(fitted.labels_, fitted.decision_scores_ >= fitted.threshold_)
    np.testing.assert_array_equal(fitted.predict(NEW), scores >= fitted.threshold_)
    assert set(fitted.predict(NEW)) <= {0, 1}
    proba = fitted.predict_proba(NEW)
    np.testing.assert_allclose(proba.sum(1), 1)
    assert (np.diff(proba[scores.argsort(), 1]) >= 0).all()
    assert (fitted.p_value(NEW) > 0).all()
    np.testing.assert_array_equal(fitted.fit_predict(NORMAL), fitted.labels_)


def test_pyods_own_helpers_take_it(fitted: AnomalyDetector) -> None:
    pyod = pytest.importorskip("pyod", reason="PyOD is not installed")
    from pyod.utils.utility import check_detector, score_to_label

    assert pyod
    check_detector(fitted)
    outliers = score_to_label(fitted.decision_scores_, outliers_fraction=0.1)
    assert fitted.decision_scores_[outliers == 1].min() > fitted.decision_scores_[outliers == 0].max()


@pytest.mark.parametrize("X", [NORMAL[:, 0], NORMAL, list(NORMAL[:, 0]), (NORMAL[:, 0] * 255).round().astype(np.uint8)])
def test_images_come_as_stacks_of_either_shape_or_lists(X: object, fitted: AnomalyDetector) -> None:
    np.testing.assert_allclose(fitted.decision_function(X), fitted.decision_scores_, rtol=0.2)


def test_paths_are_images_too(fitted: AnomalyDetector, tmp_path: Path) -> None:
    paths = [str(path) for path in write_images(tmp_path, NEW)]
    scores = fitted.decision_function(paths)
    np.testing.assert_array_equal(scores, fitted.decision_function(np.array(paths)))
    np.testing.assert_allclose(scores, fitted.decision_function(NEW), rtol=0.1)


def test_parameters_are_cloned_and_set(fitted: AnomalyDetector) -> None:
    made = AnomalyDetector("gaussian", preset="tiny", components=4)
    copied = clone(made)
    assert copied.get_params() == made.get_params()
    assert copied.get_params()["components"] == 4
    copied.set_params(components=5, false_alarm_rate=0.2)
    assert (copied.options["components"], copied.false_alarm_rate, made.options["components"]) == (5, 0.2, 4)
    with pytest.raises(ValueError, match="gaussian has no parameter 'component'; did you mean 'components'"):
        copied.set_params(component=3)
    assert "AnomalyDetector(" in repr(made)


def test_what_is_labelled_abnormal_is_not_learnt_from() -> None:
    both, labels = np.concatenate([NORMAL[:30], NEW[12:]]), np.repeat([0, 1], [30, 12])
    alone = AnomalyDetector("gaussian", preset="tiny").fit(NORMAL[:30])
    taught = AnomalyDetector("gaussian", preset="tiny").fit(both, labels)
    np.testing.assert_array_equal(taught.decision_function(NEW), alone.decision_function(NEW))
    assert len(taught.decision_scores_) == 42


def test_it_works_in_a_pipeline_and_a_grid_search() -> None:
    darker = FunctionTransformer(lambda images: images * np.float32(0.9))
    pipeline = make_pipeline(darker, AnomalyDetector("gaussian", preset="tiny"))
    X, y = np.concatenate([NORMAL, NEW])[:, 0], np.concatenate([np.zeros(60, int), Y])
    fold = PredefinedSplit(np.repeat([-1, 0], [60, 24]))
    search = GridSearchCV(
        pipeline, {"anomalydetector__components": [2, 8]}, scoring="roc_auc", cv=fold, error_score="raise"
    )
    search.fit(X, y)
    assert search.best_score_ > 0.9
    assert search.best_estimator_.predict(NEW[:, 0]).shape == (24,)
    assert search.best_estimator_.decision_function(NEW[:, 0])[12:].mean() > 0


def test_a_shape_that_is_no_image_is_refused(fitted: AnomalyDetector) -> None:
    with pytest.raises(ValueError, match=r"X has shape \(3, 5\); \(N, H, W\)"):
        fitted.decision_function(np.zeros((3, 5)))
