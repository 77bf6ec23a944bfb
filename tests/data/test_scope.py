"""What shows something else than the training images: the remainder of principal components, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from conftest import anatomy, blob, dataset
from loligo.data import neighbours, scope
from loligo.data.reference import Reference
from loligo.data.scope import Scope

NORMALS, NEW = anatomy(130, 48), anatomy(60, 48, seed=9)


@pytest.fixture(scope="module")
def known() -> Reference:
    return Reference.of(dataset(NORMALS[:110]), dataset(NORMALS[110:]))


def rate(known: Reference, images: np.ndarray) -> float:
    return float(np.mean(["out_of_scope" in names for names in known.warnings(dataset(images))]))


def test_the_remainder_is_that_of_principal_components() -> None:
    train, new = (neighbours.signatures(images[:, 0]) for images in (NORMALS, NEW))
    pca = PCA(scope.PATTERNS).fit(train)
    expected = np.linalg.norm(new - pca.inverse_transform(pca.transform(new)), axis=1)
    np.testing.assert_allclose(Scope.of(train, new[:5]).remainder(new), expected, atol=1e-4)


def test_anatomy_with_and_without_findings_is_in_scope(known: Reference) -> None:
    assert rate(known, NEW) == 0
    assert rate(known, blob(NEW)) == 0


@pytest.mark.parametrize("kind", ["negative", "stripes", "noise"])
def test_something_else_is_out_of_scope(known: Reference, kind: str) -> None:
    other = {
        "negative": 1 - NEW,
        "stripes": np.tile(np.mgrid[:48, :48][0] // 6 % 2, (9, 1, 1, 1)).astype(np.float32),
        "noise": np.random.default_rng(0).random(NEW.shape, dtype=np.float32),
    }[kind]
    assert rate(known, other) == 1


def test_a_flat_image_is_blank_and_not_out_of_scope(known: Reference) -> None:
    assert rate(known, np.zeros((2, 1, 48, 48), np.float32)) == 0


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_few_training_images_exclude_none_of_their_kind(count: int) -> None:
    few = Reference.of(dataset(NORMALS[:count]), dataset(NORMALS[-4:]))
    assert rate(few, NEW) <= 0.02


def test_where_normal_images_have_nothing_in_common_none_is_excluded() -> None:
    noise = np.random.default_rng(0).random((80, 1, 48, 48), dtype=np.float32)
    known = Reference.of(dataset(noise[:40]), dataset(noise[40:60]))
    assert rate(known, noise[60:]) == 0
