"""Blending by gradients, against a sparse solver."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from loligo.data import poisson


def solved(box: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Write down one equation a pixel within (H, W), and solve them."""
    height, width = box.shape
    inner = [(r, c) for r in range(1, height - 1) for c in range(1, width - 1)]
    number = {place: i for i, place in enumerate(inner)}
    matrix, right_side = lil_matrix((len(inner), len(inner))), np.zeros(len(inner))
    for (r, c), i in number.items():
        matrix[i, i] = -4
        right_side[i] = down[r, c] - down[r - 1, c] + right[r, c] - right[r, c - 1]
        for place in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
            if place in number:
                matrix[i, number[place]] = 1
            else:
                right_side[i] -= box[place]
    result = box.astype(np.float64)
    result[1:-1, 1:-1] = spsolve(matrix.tocsc(), right_side).reshape(height - 2, width - 2)
    return result


@pytest.mark.parametrize("shape", [(3, 3), (3, 17), (24, 31)])
def test_blending_solves_poissons_equation(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    box = rng.random((2, *shape), dtype=np.float32)
    guide = poisson.gradients(rng.random((2, *shape), dtype=np.float32))
    oracle = np.stack([solved(b, d, r) for b, d, r in zip(box, *guide, strict=True)])
    np.testing.assert_allclose(poisson.blend(box, guide), oracle, atol=1e-5)


def test_a_large_box_keeps_its_precision() -> None:
    wave = np.sin(np.mgrid[:256, :256].sum(0) / 40)[None].astype(np.float32)
    blended = poisson.blend(wave, poisson.gradients(wave + 0.3))
    np.testing.assert_allclose(blended, wave, atol=1e-5)  # a constant has no gradient


def test_the_stronger_gradient_is_taken_one_by_one() -> None:
    rng = np.random.default_rng(1)
    a, b = (poisson.gradients(rng.random((1, 4, 5), dtype=np.float32)) for _ in range(2))
    for own, other, found in zip(a, b, poisson.stronger(a, b), strict=True):
        for x, y, z in zip(own.ravel(), other.ravel(), found.ravel(), strict=True):
            assert z == (x if abs(x) > abs(y) else y)


def test_a_box_without_an_inside_is_refused() -> None:
    box = np.zeros((1, 2, 9), np.float32)
    with pytest.raises(ValueError, match="2 x 9 pixels has nothing within; 3 x 3 is the least"):
        poisson.blend(box, poisson.gradients(box))
