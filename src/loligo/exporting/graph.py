"""One graph of a trained method: from pixels as they are to score, p-value, flag and map.

Resizing is that of `data.preprocessing` as two products with matrices of weights: Pillow's triangle, as wide as a pixel
of the coarser grid. Whole numbers make the weights, so that nothing is lost to rounding; of an image that has the
network's size already both are the identity, and its levels come through unchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from loligo.calibration import Calibration
from loligo.config import Aspect
from loligo.data.preprocessing import WHITE
from loligo.methods.contract import Method


class Clamp(nn.Module):
    """ReLU6 as ONNX has it: torch takes most of the time of an export to decompose its own."""

    def forward(self, x: Tensor) -> Tensor:
        """Limit values to [0, 6]."""
        return x.clamp(0, 6)


class Graph(nn.Module):
    """A method with what comes before and after it, for images of any one size a batch."""

    scores: Tensor

    def __init__(self, method: Method, aspect: Aspect, calibration: Calibration | None) -> None:
        """Take a method that is frozen; without a ``calibration``, as for slices of volumes, no p-value is given."""
        super().__init__()
        self.method, self.pad, self.size, self.calibration = method, aspect == "pad", method.config.size, calibration
        if calibration:
            self.register_buffer("scores", torch.tensor(calibration.scores))
        for part in method.modules():
            resize = getattr(part, "set_input_size", None)
            if resize and hasattr(part, "pos_embed"):  # of a transformer; OpenVINO would interpolate them otherwise
                resize(img_size=(self.size, self.size))
            for name, child in part.named_children():
                if type(child) is nn.ReLU6:
                    setattr(part, name, Clamp())
        self.requires_grad_(False)

    def forward(self, pixels: Tensor, white: Tensor) -> dict[str, Tensor]:
        """Score ``pixels`` (N, C, H, W) float32, of which ``white`` (N,) float32 is each image's value of white."""
        grey = self._squared(pixels[:, :1] / white[:, None, None, None])
        channels = pixels.shape[1]
        if channels > 1:  # the position of a slice, the same all over
            grey = torch.cat([grey, pixels[:, 1:, :1, :1].expand(-1, -1, self.size, self.size)], 1)
        image, heat, reconstruction = self.method(grey)
        found = {"score": image, "map": heat, "reconstruction": reconstruction}
        if self.calibration:
            found |= self._calibrated(image, self.calibration)
        return {name: part for name, part in found.items() if part is not None}

    def _squared(self, x: Tensor) -> Tensor:
        """Lay images (N, 1, H, W) in [0, 1] in the network's square: (N, 1, S, S), of 16 bit."""
        rows, columns = (self._weights(side, x) for side in x.shape[2:])
        small = rows @ (x @ columns.mT)
        return (small.clamp(0, 1) * WHITE).round() / WHITE

    def _weights(self, side: int, x: Tensor) -> Tensor:
        """Return the weights (S, side) of pixels along a side in those of the square; those around the image are 0."""
        length, height, width = (torch.scalar_tensor(n, device=x.device) for n in (side, *x.shape[2:]))  # in the graph
        longest = torch.maximum(height, width) if self.pad else length
        inside = (length * self.size / longest).round().clamp(min=1)
        target = torch.arange(self.size, device=x.device) - ((self.size - inside) / 2).floor()
        source = torch.arange(side, device=x.device)
        distance = ((2 * source + 1) * inside - (2 * target[:, None] + 1) * length).abs()
        weights = (1 - distance / (2 * torch.maximum(inside, length))).clamp(min=0)
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-12)
        return weights * ((target >= 0) & (target < inside))[:, None]

    def _calibrated(self, image: Tensor, calibration: Calibration) -> dict[str, Tensor]:
        """Return what normals that were held out say of scores (N,); see `Calibration`."""
        exact = image.double()
        reached = (self.scores >= exact[:, None]).sum(1)
        return {
            "p_value": ((1 + reached) / (len(self.scores) + 1)).float(),
            "flag": exact >= calibration.threshold,
            "anomaly_score": torch.sigmoid((exact - calibration.mean) / calibration.std).float(),
        }
