import numpy as np
import torch

from loligo.nn.places import C1, C2, Comparison, Deviations, Places, dissimilarity, mean_and_deviation


def test_dissimilarity_is_one_minus_ssim() -> None:
    x, y = torch.rand(2, 2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    found = dissimilarity(x, y, window=4, stride=4)
    for n in range(2):
        for i in range(3):
            for j in range(3):
                a, b = (t[n, 0, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].double().numpy() for t in (x, y))
                covariance = np.mean(a * b) - a.mean() * b.mean()
                ssim = (2 * a.mean() * b.mean() + C1) * (2 * covariance + C2)
                ssim /= (a.mean() ** 2 + b.mean() ** 2 + C1) * (a.var() + b.var() + C2)
                np.testing.assert_allclose(float(found[n, 0, i, j]), 1 - ssim, rtol=1e-4)


def test_equal_images_do_not_differ() -> None:
    x = torch.rand(1, 1, 16, 16)
    assert float(dissimilarity(x, x, 8, 2).abs().max()) < 1e-5


def test_score_is_the_most_unusual_window_and_the_map_shows_where() -> None:
    torch.manual_seed(0)
    places = Places(32, 8)
    normal = torch.rand(40, 1, 32, 32)
    reconstructed = (normal + 0.1 * torch.randn_like(normal)).clamp(0, 1)
    places.fit([places(normal[:20], reconstructed[:20]), places(normal[20:], reconstructed[20:])])
    torch.testing.assert_close(places.mean, places(normal, reconstructed).mean(0, keepdim=True))
    changed = normal[:2].clone()
    changed[1, :, 4:12, 20:28] = 0
    scores = places.score(changed, reconstructed[:2])
    assert scores.image[1] > scores.image[0] + 5
    row, column = divmod(int(scores.map[1, 0].argmax()), 32)
    assert 4 <= row < 12
    assert 20 <= column < 28


def test_deviations_are_those_of_all_maps_at_once_whatever_the_batches() -> None:
    maps = 100 + torch.rand(11, 1, 6, 6, generator=torch.Generator().manual_seed(0)) * torch.linspace(0, 1, 6)
    deviations = Deviations(6)
    deviations.fit(iter([maps[:4], maps[4:8], maps[8:]]))
    mean, deviation = mean_and_deviation(maps)
    torch.testing.assert_close(deviations.std, deviation, rtol=1e-3, atol=0)
    torch.testing.assert_close(deviations.standardised(maps), (maps - mean) / deviation, rtol=1e-2, atol=1e-3)


def test_unusually_similar_windows_count_as_much_as_dissimilar_ones() -> None:
    torch.manual_seed(0)
    normal = torch.rand(60, 1, 32, 32)
    reconstructed = normal + 0.1 * torch.randn_like(normal)
    comparison = Comparison(32, "unusual")
    comparison.fit(
        lambda x: reconstructed[:40] if torch.equal(x, normal[:40]) else reconstructed[40:], [normal[:40], normal[40:]]
    )
    better, worse, usual = (
        comparison(normal[:10], normal[:10] + s * (reconstructed[:10] - normal[:10])).image for s in (0, 2, 1)
    )
    assert (better > 2 * usual).all()
    assert (worse > 2 * usual).all()


def test_an_error_is_the_mean_difference_to_a_power() -> None:
    x, y = torch.rand(2, 3, 1, 16, 16)
    for power in (1.0, 2.0):
        scores = Comparison(16, "error", power)(x, y)
        torch.testing.assert_close(scores.map, (x - y).abs() ** power)
        torch.testing.assert_close(scores.image, scores.map.mean((1, 2, 3)))


def test_local_is_what_places_say() -> None:
    x, y = torch.rand(2, 3, 1, 24, 24)
    torch.testing.assert_close(Comparison(24, "local")(x, y).image, Places(24, 8).score(x, y).image)
