"""Batches of normal images as otherwise acquired, and with simulated findings: what a method is taught by."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from loligo.data import acquisition, findings
from loligo.types import Floats

LEFT_OUT = 5
"""One in so many images is left out."""
DEVICES = 0.2
"""Rate of chest radiographs that a support device is laid over, whether there is a finding or none."""
A = TypeVar("A")
B = TypeVar("B")


def left_out(x: Tensor) -> Tensor:
    """Say of each image (N, C, H, W) whether it is one of those left out, (N,) bool; its content alone decides."""
    out = [_number(image) % LEFT_OUT == 0 for image in _arrays(x)]
    return torch.tensor(out, dtype=torch.bool, device=x.device)


def changed(x: Tensor, copy: int) -> Tensor:
    """Return images (N, 1, H, W) as otherwise acquired; an image's content and ``copy`` alone decide how."""

    def change(image: Floats) -> Floats:
        return acquisition.change(image, np.random.default_rng([_number(image), copy]))[0]

    return _stacked(_each(change, _arrays(x)), x)


def simulated(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return images (N, 1, H, W) and copies with a finding, all as otherwise acquired, and masks, both (2 N, 1, H, W).

    Randomness comes from torch's state. A support device is laid over some chest radiographs before, over the normal
    image and its copy alike: it is no disease. What a finding takes from another image is the next of the batch.
    """
    images = _arrays(x)
    seed = int(torch.randint(2**62, ()))

    def make(index: int) -> list[tuple[Floats, Any]]:
        rng = np.random.default_rng([seed, index])
        image, found, mask = _inserted(images[index], rng, images[index - 1])
        return [acquisition.change(image, rng, mask=np.zeros_like(mask)), acquisition.change(found, rng, mask=mask)]

    made = [pair for pairs in zip(*_each(make, range(len(images))), strict=True) for pair in pairs]
    return _stacked([image for image, _ in made], x), _stacked([mask for _, mask in made], x)


def with_finding(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return copies of images (N, 1, H, W) with a finding, as otherwise acquired, and its masks, both (N, 1, H, W).

    An image's content alone decides which finding it is, and all else.
    """

    def make(image: Floats) -> tuple[Floats, Any]:
        rng = np.random.default_rng([_number(image)])
        _, found, mask = _inserted(image, rng)
        return acquisition.change(found, rng, mask=mask)

    images, masks = zip(*_each(make, _arrays(x)), strict=True)
    return _stacked(list(images), x), _stacked(list(masks), x)


def _inserted(image: Floats, rng: np.random.Generator, donor: Floats | None = None) -> tuple[Floats, Floats, Any]:
    """Return an image, its copy with a finding, both with a device or without, and the mask (H, W) bool."""
    anatomy = findings.anatomy(image)
    if anatomy.lungs is not None and rng.random() < DEVICES:
        image = findings.insert(image, "device", rng, anatomy)[0]
    return image, *findings.insert(image, str(rng.choice(findings.taught(anatomy))), rng, anatomy, donor)


def _each(function: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """Apply a function to each item, by as many threads as torch uses."""
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return list(threads.map(function, items))


def _stacked(images: list[Any], like: Tensor) -> Tensor:
    """Return arrays (H, W) as one tensor (N, 1, H, W) float32, where and laid out as images are."""
    x = torch.from_numpy(np.stack(images).astype(np.float32))[:, None].to(like)
    return x.contiguous(memory_format=torch.channels_last)


def _number(image: Floats) -> int:
    return zlib.crc32(np.ascontiguousarray(image).tobytes())


def _arrays(x: Tensor) -> Floats:
    """Return images (N, C, H, W) as an array (N, H, W) float32, of their first channel."""
    array: Floats = x[:, 0].float().cpu().numpy()
    return array
