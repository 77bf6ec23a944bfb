"""ELU against PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from loligo.nn.elu import Elu, elu


@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 2e-7), (torch.bfloat16, 1e-2)])
def test_values_and_gradients_are_those_of_pytorch(dtype: torch.dtype, apart: float) -> None:
    x = torch.cat([torch.linspace(-90, 90, 999), torch.linspace(-0.01, 0.01, 99), torch.zeros(1)]).to(dtype)
    found, expected = (t.clone().requires_grad_() for t in (x, x))
    y, z = Elu()(found), F.elu(expected)
    torch.testing.assert_close(y, z, rtol=apart, atol=max(1e-7, apart / 10))
    weight = torch.linspace(-1, 2, len(x)).to(dtype)
    (y * weight).sum().backward()
    (z * weight).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad, rtol=2 * apart, atol=apart)
    assert y.dtype == dtype and found.grad is not None and found.grad.dtype == dtype


def test_gradcheck() -> None:
    x = torch.tensor([-3.0, -0.5, 0.7, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: elu(x) * 3, x, atol=1e-3, eps=1e-3)
