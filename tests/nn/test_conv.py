import pytest
import torch
from torch import nn

from loligo.nn.conv import ConvNorm, PackedConv, PackedConvNorm, Unit, UpConvNorm, packed, upsample


def trained(module: nn.Module) -> nn.Module:
    """Give batch norms statistics and weights that are not those of the start."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            for tensor in (child.running_mean, child.bias.data):
                tensor.normal_()
            for tensor in (child.running_var, child.weight.data):
                tensor.uniform_(0.5, 2)
    return module.eval()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_packed_unit_equals_the_plain_one(stride: int, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    unit = trained(nn.Sequential(Unit(3, 16, stride)))
    x = torch.randn(2, 3, 12, 12).to(memory_format=torch.channels_last)
    fast = packed(unit, dtype)
    assert isinstance(fast[0].first, PackedConvNorm)
    with torch.inference_mode():
        plain, found = unit(x), fast(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), plain, rtol=tolerance, atol=tolerance * float(plain.max()))


def test_packing_leaves_the_original_alone() -> None:
    unit = nn.Sequential(Unit(2, 4))
    before = {k: v.clone() for k, v in unit.state_dict().items()}
    packed(unit, torch.bfloat16)
    assert unit.training
    assert all(torch.equal(v, before[k]) for k, v in unit.state_dict().items())


def test_upsample_keeps_bfloat16_under_autocast() -> None:
    x = torch.randn(1, 2, 3, 3, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y = upsample(x)
    assert y.dtype == torch.bfloat16
    plain = nn.functional.interpolate(x.float(), scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(y.float(), plain, rtol=0.01, atol=0.01)


def test_conv_norm_adds_the_residual_before_the_relu() -> None:
    module = trained(ConvNorm(2, 2))
    x, residual = torch.randn(1, 2, 5, 5), torch.randn(1, 2, 5, 5)
    with torch.no_grad():
        expected = torch.relu(module.norm(module.conv(x)) + residual)
        torch.testing.assert_close(module(x, residual), expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_without_packing_a_unit_is_a_plain_one(
    stride: int, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    unit = trained(nn.Sequential(Unit(3, 16, stride)))
    x = torch.randn(2, 3, 12, 12).to(memory_format=torch.channels_last)
    here = packed(unit, dtype)
    monkeypatch.setattr("loligo.nn.conv.can_pack", lambda dtype: False)
    fallback = packed(unit, dtype)
    assert isinstance(fallback[0].first, PackedConvNorm) and not fallback[0].first.packed
    with torch.inference_mode():
        plain, found, as_packed = unit(x), fallback(x), here(x)
    assert found.dtype == as_packed.dtype == dtype
    for expected in (plain, as_packed.float()):
        torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance * float(plain.max()))


@pytest.mark.parametrize(("act", "limits"), [("none", ()), ("relu", ()), ("hardtanh", (0.0, 0.3))])
def test_activations_are_the_same_with_and_without_packing(
    act: str, limits: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    unit, x = trained(ConvNorm(4, 8)), torch.randn(2, 4, 6, 6).to(memory_format=torch.channels_last)
    found = [PackedConv(unit.conv, unit.norm, torch.float32)]
    monkeypatch.setattr("loligo.nn.conv.can_pack", lambda dtype: False)
    found.append(PackedConv(unit.conv, unit.norm, torch.float32))
    assert not found[1].packed
    with torch.inference_mode():
        one, other = (conv.convolve(x, act, limits) for conv in found)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    if limits:
        assert (float(other.min()), float(other.max())) == pytest.approx(limits)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_a_packed_transposed_convolution_equals_the_plain_one(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    up = trained(nn.Sequential(UpConvNorm(6, 4)))
    x = torch.randn(2, 6, 5, 5)
    with torch.no_grad():
        plain = up(x)
        expected = torch.relu(up[0].norm(up[0].conv(x)))
        found = packed(up, dtype)(x.to(dtype))
    assert plain.shape == (2, 4, 10, 10) and found.dtype == dtype
    torch.testing.assert_close(plain, expected, rtol=0, atol=0)
    torch.testing.assert_close(found.float(), plain, rtol=tolerance, atol=tolerance * float(plain.max()))
