"""The registry of methods: one line each; a module is imported when its method is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from loligo.names import nearest

if TYPE_CHECKING:
    from loligo.methods.contract import Method

METHODS = {
    "ae": ("Autoencoder", "convolutional autoencoder, scored by reconstruction error"),
    "anatpaste": ("Anatpaste", "tells normal images from those with a patch pasted into the lungs (iScience 2023)"),
    "cutpaste": ("Cutpaste", "tells normal images from cut and pasted ones, then a Gaussian of features (CVPR 2021)"),
    "dinomaly": ("Dinomaly", "a frozen vision transformer's features, rebuilt through noise, loosely (CVPR 2025)"),
    "edc": ("Edc", "encoder-decoder contrast: a pretrained encoder moves with the decoder of its features (TMI 2024)"),
    "gaussian": ("Gaussian", "principal components of pixels, scored by Mahalanobis distance; no training"),
    "igd": ("Igd", "a Gaussian of codes, smoothed by a critic of their mixtures, and reconstruction (AAAI 2022)"),
    "implicit_field": ("ImplicitField", "probabilities of intensities at coordinates, by a code found (MICCAI 2021)"),
    "mkd": ("Mkd", "a small student of a pretrained teacher, in value and direction of features (CVPR 2021)"),
    "padim": ("Padim", "a Gaussian of a pretrained network's features at each place; no training (2020)"),
    "panda": ("Panda", "nearest neighbours among a pretrained network's features, drawn together (CVPR 2021)"),
    "patchcore": ("Patchcore", "distance from a coreset of a pretrained network's features; no training (CVPR 2022)"),
    "reverse_distillation": ("ReverseDistillation", "a teacher's features, rebuilt from one embedding (CVPR 2022)"),
    "salad": ("Salad", "images and codes translated to and fro, held together and to a centre (TMI 2021)"),
    "simsid": ("Simsid", "learnt memory matrices at three levels, feature in-painting, a discriminator (TPAMI 2024)"),
    "simsid_staged": ("SimsidStaged", "in stages: teacher, student with hierarchical memory, discriminator"),
    "squid": ("Squid", "memory queues, feature in-painting and a discriminator (CVPR 2023)"),
    "vae": ("Vae", "variational autoencoder, scored by the ELBO at the mean code"),
    "vqvae_restoration": ("VqvaeRestoration", "likelihood of quantised codes, restored by a learnt prior (2020)"),
}
"""Name of the method and of its module: (class, summary)."""


def get(name: str) -> type[Method]:
    """Import and return a method's class; ValueError with the nearest name where there is none."""
    if name not in METHODS:
        raise ValueError(f"there is no method {name!r}; {nearest(name, METHODS)}")
    found: type[Method] = getattr(importlib.import_module(f"loligo.methods.{name}"), METHODS[name][0])
    return found
