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
DEFAULT = "duet"
"""The method that is trained where none is named."""
log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """A method that comes with the package; its module has its name."""

    kind: str
    """Its class."""
    summary: str
    time: str = ""
    """What training takes: 1,133 radiographs on one core, by the preset for radiographs where it has one."""
    good_at: str = ""
    not_exportable: str = ""
    """What `Method.not_exportable` says of its default options."""
    weakly_supervised: bool = False
    """Whether it learns from abnormal images, too, as `Method.weakly_supervised` says."""


RASTER = "it restores codes by a raster loop, whose length depends on the image"
GRADIENT = "it follows a classifier's gradient, which torch.export cannot record"
# fmt: off
METHODS = {
    "ae": Entry("Autoencoder", "convolutional autoencoder, scored by reconstruction error", "20 min", "parts that are missing, out of place or new"),
    "anatpaste": Entry("Anatpaste", "classifies images with a patch pasted into the lungs (iScience 2023)", "13 min", "to compare with"),
    "anoddpm": Entry("Anoddpm", "diffusion of simplex noise, part of the way and back (CVPR Workshops 2022)", "10 min", "to compare with; days at the paper's settings"),
    "anogan": Entry("Anogan", "searches the code whose generated image is most like the image (IPMI 2017)", "6 min", "to compare with; not measured on radiographs"),
    "cutpaste": Entry("Cutpaste", "classifies cut and pasted images, then a Gaussian of features (CVPR 2021)", "13 min", "textures, by its paper"),
    "ddpm_guided": Entry("DdpmGuided", "encoded into noise, decoded as healthy by a classifier's guidance (MICCAI 2022)", "15 min", "WEAKLY SUPERVISED: needs abnormal images to train on", GRADIENT, weakly_supervised=True),
    "dinomaly": Entry("Dinomaly", "loosely reconstructs features of a frozen vision transformer (CVPR 2025)", "hours", "not measured here; wants a GPU and DINOv2's weights"),
    "duet": Entry("Duet", "likelihood ratio and a head, both of simulated findings, on one backbone's pass; our own", "35 min", "the default: findings, whatever exposure, noise or blur"),
    "edc": Entry("Edc", "encoder-decoder contrast: a pretrained encoder moves with the decoder of its features (TMI 2024)", "10 min", "radiographs"),
    "fanogan": Entry("Fanogan", "WGAN-GP, then an encoder to its codes; difference of image and features (MedIA 2019)", "15 min", "to compare with; not measured on radiographs"),
    "ganomaly": Entry("Ganomaly", "encoder, decoder, encoder against a discriminator; distance of the codes (ACCV 2018)", "2 min", "parts that are missing, out of place or new"),
    "gaussian": Entry("Gaussian", "principal components of pixels, scored by Mahalanobis distance; no training", "1 s", "the baseline that a method must beat"),
    "igd": Entry("Igd", "a Gaussian of codes, smoothed by a critic of their mixtures, and reconstruction (AAAI 2022)", "10 min", "radiographs"),
    "implicit_field": Entry("ImplicitField", "likelihood of intensities at coordinates, given a code (MICCAI 2021)", "8 min", "to compare with"),
    "memae": Entry("Memae", "autoencoder that decodes what a learnt memory holds of the code (ICCV 2019)", "6 min", "to compare with"),
    "mkd": Entry("Mkd", "a small student of a pretrained teacher, in value and direction of features (CVPR 2021)", "10 min", "radiographs"),
    "mnad": Entry("Mnad", "autoencoder guided by prototypes, scored by PSNR and their distance (CVPR 2020)", "6 min", "to compare with"),
    "padim": Entry("Padim", "a Gaussian of a pretrained network's features at each place; no training (2020)", "1 min", "START HERE: radiographs of one view, taken alike"),
    "panda": Entry("Panda", "nearest neighbours among pretrained features, adapted to be compact (CVPR 2021)", "7 min", "radiographs, as wholes rather than places"),
    "patchcore": Entry("Patchcore", "distance from a coreset of pretrained features; no training (CVPR 2022)", "1 min", "radiographs; anatomy need not lie at one place"),
    "region_inpainting": Entry("RegionInpainting", "in-paints windows adversarially; superpixels with large errors are abnormal (ISBI 2021)", "10 min", "to compare with"),
    "reverse_distillation": Entry("ReverseDistillation", "reconstructs a teacher's features (CVPR 2022)", "10 min", "radiographs; parts that are missing or new"),
    "riad": Entry("Riad", "in-paints grids of several sizes, scored by similarity of gradients (Pattern Recognition 2021)", "10 min", "to compare with"),
    "salad": Entry("Salad", "images and codes translated to and fro, held together and to a centre (TMI 2021)", "6 min", "to compare with"),
    "simsid": Entry("Simsid", "memory matrices at three levels, feature in-painting, a discriminator (TPAMI 2024)", "3 h", "radiographs, with patience or a GPU"),
    "simsid_staged": Entry("SimsidStaged", "in stages: teacher, student with hierarchical memory, discriminator", "50 min", "to compare with; below chance on radiographs"),
    "squid": Entry("Squid", "memory queues, feature in-painting and a discriminator (CVPR 2023)", "4 h", "radiographs: the best AUC by little, with patience"),
    "syndiff": Entry("Syndiff", "abnormal images translated to normal ones, adversarial diffusion (TMI 2023)", "15 min", "WEAKLY SUPERVISED: needs abnormal images to train on", weakly_supervised=True),
    "vae": Entry("Vae", "variational autoencoder, scored by the ELBO at the mean code", "30 min", "to compare with; near chance on radiographs"),
    "vqvae_restoration": Entry("VqvaeRestoration", "likelihood of quantised codes, restored by a learnt prior (2020)", "2 h", "NIfTI volumes; parts out of place", RASTER),
}
"""The methods that come with the package."""
# fmt: on


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
    lines |= {name: _docstring(name, point) for name, point in _plugins().items()}
    return dict(sorted(lines.items()))


def weakly_supervised(name: str) -> bool:
    """Say whether METHOD or METHOD:VARIANT learns from abnormal images, too; False for a name that is not known."""
    name = name.partition(":")[0]
    if name in METHODS:
        return METHODS[name].weakly_supervised
    return name in _plugins() and get(name).weakly_supervised


def marked(name: str) -> str:
    """Return METHOD or METHOD:VARIANT as tables name it, which say of a weakly supervised one that it is."""
    return f"{name} (weakly supervised)" if weakly_supervised(name) else name


def told(name: str) -> str:
    """Say of a method what it is, how long it trains, and what it is good at."""
    entry = METHODS.get(name)
    if entry is None or not entry.time:
        return list_methods()[name]
    return f"{marked(name)}: {entry.summary}. Trains in {entry.time} on 1,133 radiographs, one core; good at: {entry.good_at}."


def table() -> list[tuple[str, str, str, str]]:
    """Return each method's name, training time, the extra that it needs, and what it is good at, in order."""
    from loligo.methods import declared  # here: it reads this registry

    known = [(name, entry.time, declared.extra(name), entry.good_at) for name, entry in METHODS.items()]
    return sorted([*known, *((name, "", "", f"from {_package(point)}") for name, point in _plugins().items())])


def _line(entry: Entry) -> str:
    weakly = " [weakly supervised]" if entry.weakly_supervised else ""
    return entry.summary + weakly + (f" [no export: {entry.not_exportable}]" if entry.not_exportable else "")


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


def source(name: str) -> tuple[Path | None, str]:
    """Return the file of a method, None where it cannot be told without importing it, and the name of its class."""
    if name in METHODS:
        return Path(__file__).with_name(f"{name}.py"), METHODS[name].kind
    point = _plugins()[name]
    path = Path(str(point.dist.locate_file(point.module.replace(".", "/")))) if point.dist else Path()
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None), point.attr


def _docstring(name: str, point: EntryPoint) -> str:
    """Return the first line of the docstring of another package's method, without importing it, and the package."""
    file, _ = source(name)
    text = (ast.get_docstring(ast.parse(file.read_bytes())) or "") if file else ""
    package = f"from {_package(point)}"
    return f"{text.partition(chr(10))[0].rstrip('.')} ({package})" if text else package
