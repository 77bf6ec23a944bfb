"""The registry of methods: one line each; a module is imported when its method is asked for.

Other packages add theirs by an entry point of the group ``loligo.methods``: NAME = "package.module:Class".
"""

from __future__ import annotations

import ast
import importlib
import logging
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from loligo.names import nearest

if TYPE_CHECKING:
    from loligo.methods.contract import Method

GROUP = "loligo.methods"
log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """A method that comes with the package; its module has its name."""

    kind: str
    """Its class."""
    summary: str
    not_exportable: str = ""
    """What `Method.not_exportable` says of its default options."""


METHODS = {
    "ae": Entry("Autoencoder", "convolutional autoencoder, scored by reconstruction error"),
    "anatpaste": Entry("Anatpaste", "classifies images with a patch pasted into the lungs (iScience 2023)"),
    "cutpaste": Entry("Cutpaste", "classifies cut and pasted images, then a Gaussian of features (CVPR 2021)"),
    "dinomaly": Entry("Dinomaly", "loosely reconstructs features of a frozen vision transformer (CVPR 2025)"),
    "edc": Entry(
        "Edc", "encoder-decoder contrast: a pretrained encoder moves with the decoder of its features (TMI 2024)"
    ),
    "gaussian": Entry("Gaussian", "principal components of pixels, scored by Mahalanobis distance; no training"),
    "igd": Entry("Igd", "a Gaussian of codes, smoothed by a critic of their mixtures, and reconstruction (AAAI 2022)"),
    "implicit_field": Entry("ImplicitField", "likelihood of intensities at coordinates, given a code (MICCAI 2021)"),
    "mkd": Entry("Mkd", "a small student of a pretrained teacher, in value and direction of features (CVPR 2021)"),
    "padim": Entry("Padim", "a Gaussian of a pretrained network's features at each place; no training (2020)"),
    "panda": Entry("Panda", "nearest neighbours among pretrained features, adapted to be compact (CVPR 2021)"),
    "patchcore": Entry("Patchcore", "distance from a coreset of pretrained features; no training (CVPR 2022)"),
    "reverse_distillation": Entry("ReverseDistillation", "reconstructs a teacher's features (CVPR 2022)"),
    "salad": Entry("Salad", "images and codes translated to and fro, held together and to a centre (TMI 2021)"),
    "simsid": Entry("Simsid", "memory matrices at three levels, feature in-painting, a discriminator (TPAMI 2024)"),
    "simsid_staged": Entry("SimsidStaged", "in stages: teacher, student with hierarchical memory, discriminator"),
    "squid": Entry("Squid", "memory queues, feature in-painting and a discriminator (CVPR 2023)"),
    "vae": Entry("Vae", "variational autoencoder, scored by the ELBO at the mean code"),
    "vqvae_restoration": Entry(
        "VqvaeRestoration",
        "likelihood of quantised codes, restored by a learnt prior (2020)",
        "it restores codes by a raster loop, whose length depends on the image",
    ),
}
"""The methods that come with the package."""


def names() -> list[str]:
    """Return the names of all methods in order, other packages' included."""
    return sorted([*METHODS, *_plugins()])


def get(name: str) -> type[Method]:
    """Import and return a method's class; ValueError with the nearest name where there is none."""
    if name in METHODS:
        found: type[Method] = getattr(importlib.import_module(f"{__name__}.{name}"), METHODS[name].kind)
        return found
    plugins = _plugins()
    if name not in plugins:
        raise ValueError(f"there is no method {name!r}; {nearest(name, names())}")
    return _load(plugins[name])


def list_methods() -> dict[str, str]:
    """Return a line on each method by its name, in order; it says so where a method cannot be exported."""
    lines = {name: _line(entry) for name, entry in METHODS.items()}
    lines |= {name: _docstring(point) for name, point in _plugins().items()}
    return dict(sorted(lines.items()))


def _line(entry: Entry) -> str:
    return entry.summary + (f" [no export: {entry.not_exportable}]" if entry.not_exportable else "")


def _plugins() -> dict[str, EntryPoint]:
    """Return other packages' methods by name, not yet imported; one whose name is taken is refused with a warning."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        taken = "comes with loligo" if point.name in METHODS else ""
        if point.name in found and point.value != found[point.name].value:
            taken = f"is that of the package {_package(found[point.name])}"
        if taken:
            log.warning("the package %s offers a method %r; that name %s", _package(point), point.name, taken)
        else:
            found[point.name] = point
    return found


def _load(point: EntryPoint) -> type[Method]:
    """Import another package's method; ValueError, which names the package, where that fails."""
    from loligo.methods.contract import Method

    where = f"the package {_package(point)} offers the method {point.name!r} as {point.value!r}"
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{where}, which cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise ValueError(f"{where}, which is no class of loligo.methods.contract.Method")
    return found


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "?"


def _docstring(point: EntryPoint) -> str:
    """Return the first line of the docstring of another package's method, without importing it, and the package."""
    path = Path(str(point.dist.locate_file(point.module.replace(".", "/")))) if point.dist else Path()
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            text = ast.get_docstring(ast.parse(file.read_bytes())) or ""
            return f"{text.partition(chr(10))[0].rstrip('.')} (from {_package(point)})".lstrip()
    return f"from {_package(point)}"
