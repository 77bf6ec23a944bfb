import pytest
import torch

from loligo.nn.patches import cut, stitch


def test_cut_takes_patches_in_raster_order() -> None:
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    patches = cut(x, 2)
    plain = [x[n, :, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3] for n in range(2) for i in range(2) for j in range(2)]
    torch.testing.assert_close(patches, torch.stack(plain), rtol=0, atol=0)


@pytest.mark.parametrize("grid", [1, 2, 3, 8])
def test_stitch_undoes_cut(grid: int) -> None:
    x = torch.randn(3, 2, 24, 24).to(memory_format=torch.channels_last)
    torch.testing.assert_close(stitch(cut(x, grid), grid), x, rtol=0, atol=0)


def test_an_image_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="9x8 cannot be cut into 2x2"):
        cut(torch.zeros(1, 1, 9, 8), 2)
