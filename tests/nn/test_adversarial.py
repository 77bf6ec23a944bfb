"""Adversarial losses against hand-computed values and scikit-learn."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import log_loss
from torch import Tensor, nn

from loligo.nn.adversarial import discriminator_loss, generator_loss, gradient_penalty

REAL, FAKE = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([0.3, -3.0])


def test_losses_are_the_cross_entropies_of_scikit_learn() -> None:
    real, fake = REAL.sigmoid().numpy(), FAKE.sigmoid().numpy()
    expected = log_loss([1] * 3, real, labels=[0, 1]) + log_loss([0] * 2, fake, labels=[0, 1])
    assert math.isclose(float(discriminator_loss(REAL, FAKE)), expected, rel_tol=1e-5)
    assert math.isclose(float(generator_loss(FAKE)), log_loss([1] * 2, fake, labels=[0, 1]), rel_tol=1e-5)


def test_the_penalty_of_a_linear_critic_is_that_of_its_weights() -> None:
    weights = torch.tensor([[3.0, 0.0], [0.0, 4.0]])  # a slope of 5 everywhere
    found = gradient_penalty(lambda x: (x * weights).sum((1, 2, 3)), torch.rand(6, 1, 2, 2), torch.rand(6, 1, 2, 2))
    torch.testing.assert_close(found, torch.tensor(16.0))


def test_the_penalty_of_a_quadratic_critic_is_taken_on_the_line_between_the_images() -> None:
    real, fake = torch.zeros(4, 1, 1, 1), torch.full((4, 1, 1, 1), 2.0)  # slope x**2 / 2 at x is x, of 0 to 2
    torch.manual_seed(0)
    found = gradient_penalty(lambda x: (x**2 / 2).sum((1, 2, 3)), real, fake)
    torch.manual_seed(0)
    at = 2 - 2 * torch.rand_like(real)
    torch.testing.assert_close(found, (at - 1).square().mean())
    assert at.std() > 0  # each image at a point of its own


def test_each_image_is_penalised_by_its_own_slope() -> None:
    scale = torch.tensor([0.0, 1.0, 3.0])
    found = gradient_penalty(lambda x: scale * x.sum((1, 2, 3)), torch.rand(3, 1, 1, 1), torch.rand(3, 1, 1, 1))
    torch.testing.assert_close(found, torch.tensor((1.0 + 0.0 + 4.0) / 3))  # not the slope of the mean, 4 / 3


@pytest.mark.parametrize("autocast", [False, True])
def test_the_critic_learns_by_the_penalty_as_by_finite_differences(autocast: bool) -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 1)).double()
    real, fake = torch.rand(2, 5, 1, 4, 4)

    def penalty() -> Tensor:
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return gradient_penalty(lambda x: critic(x.double())[:, 0], real, fake)

    (slope,) = torch.autograd.grad(penalty(), [critic[0].weight])
    nudge = 1e-3
    for sign in (1, -1):
        with torch.no_grad():
            critic[0].weight[1, 0, 2, 2] += sign * nudge
        value = penalty().item()
        with torch.no_grad():
            critic[0].weight[1, 0, 2, 2] -= sign * nudge
        slope[1, 0, 2, 2] -= sign * value / (2 * nudge)
    assert abs(float(slope[1, 0, 2, 2])) < 1e-3
