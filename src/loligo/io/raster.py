"""Read PNG, JPEG, BMP and TIFF radiographs of 1, 8 or 16 bit as one grey channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import ImageFile, ImageOps

from loligo.files import reason
from loligo.io.content import UnreadableImage, opened
from loligo.types import Image

MAX_PIXELS = 80_000_000
"""Largest height x width that is decoded: twice the largest radiographs, and below the size at which
Pillow warns by itself, so that its process-wide limit need not be touched."""
MAX_SIDE = 65_536
"""Longest side that is decoded: resizing takes memory by it, however narrow an image is."""
MAX_PACKED = 1_024
"""Pixels a byte that a JPEG may claim to hold; even a black one holds at most 256."""
CHROMA_TOLERANCE = 2
"""Levels of 255 by which channels of a grey JPEG may differ, since JPEG stores colour apart and rounds."""

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_JPEG = b"\xff\xd8\xff"
_FIRST = (b"\x89PNG\r\n\x1a\n", _JPEG, b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # lengths, by which text that begins with BM is told apart
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF tags and a value of the second


def sniff(first: bytes) -> bool:
    """Tell PNG, JPEG, BMP and TIFF by a file's first bytes."""
    bitmap = first[:2] == b"BM" and int.from_bytes(first[14:18], "little") in _BMP_HEADERS
    return bitmap or first.startswith(_FIRST)


def is_jpeg(first: bytes) -> bool:
    """Tell JPEG, whose compression moves edges, by a file's first bytes."""
    return first.startswith(_JPEG)


def read(path: Path) -> Image:
    """Read one still grey image, turned upright by its EXIF orientation, its content deciding the format.

    Pixels are (1, H, W) float32, divided by the largest number that the file's bit depth can hold.
    Three equal channels are folded into one (JPEG: within ``CHROMA_TOLERANCE``). Spacing is None: these
    formats hold print resolution, not millimetres of the patient.

    Raises ``UnreadableImage`` where the file is missing, broken, cut short, in colour, transparent,
    of several frames, of 32-bit or float pixels, or by its header larger than ``MAX_PIXELS`` or than its bytes can
    hold.
    """
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # for the whole process; libraries such as WeasyPrint set it on import
    try:
        # a stream: of a path Pillow maps a plain TIFF into memory, with the sides of orientations 5 to 8 mixed up
        with opened(path) as stream, PIL.Image.open(stream, formats=_FORMATS) as image:
            _refuse_header(path, image)
            grey = _grey(path, image)
    except (UnreadableImage, MemoryError):
        raise
    except PIL.Image.DecompressionBombError as error:
        raise UnreadableImage(path, f"its header asks for more than {MAX_PIXELS:,} pixels") from error
    except PIL.UnidentifiedImageError as error:
        raise UnreadableImage(path, f"its content is not {', '.join(_FORMATS)}") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ... on broken files
        raise UnreadableImage(path, f"cannot be decoded ({reason(error)})") from error
    return Image(pixels=np.ascontiguousarray(grey[None]), source=path)


def _refuse_header(path: Path, image: PIL.Image.Image) -> None:
    """Raise for what the header alone rules out, before any pixel is decoded."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnreadableImage(path, f"{width} x {height} is more than {MAX_PIXELS:,} pixels; make it smaller")
    if max(width, height) > MAX_SIDE:
        raise UnreadableImage(path, f"{width} x {height} has a side of more than {MAX_SIDE:,} pixels; crop it")
    if image.format == "JPEG" and width * height > MAX_PACKED * path.stat().st_size:
        raise UnreadableImage(path, f"claims {width} x {height} pixels in {path.stat().st_size} bytes; it is cut short")
    if _has_more(image):
        raise UnreadableImage(path, "holds several frames where one is allowed; save each as its own file")
    if image.mode not in ("I;16", "I;16B") and ";16" in str(getattr(image, "tile", "")):
        raise UnreadableImage(
            path, "16-bit pixels that are not one unsigned grey channel; save them as one, or with 8 bits"
        )


def _has_more(image: PIL.Image.Image) -> bool:
    """Tell whether there is a second frame; to count those of a TIFF takes time by the square of their number."""
    if image.format != "TIFF":
        return int(getattr(image, "n_frames", 1)) > 1
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def _grey(path: Path, opened: PIL.Image.Image) -> npt.NDArray[np.float32]:
    """Decode to (H, W) float32 in [0, 1]."""
    is_jpeg, tags = opened.format == "JPEG", getattr(opened, "tag_v2", {})
    image = ImageOps.exif_transpose(opened)
    if image.mode in ("I;16", "I;16B") and "transparency" not in image.info:
        return _scale_deep(np.asarray(image), tags)
    if image.has_transparency_data or image.mode in ("P", "PA"):
        image = _opaque(path, image)
    if image.mode == "RGB":
        return _fold(path, np.asarray(image), CHROMA_TOLERANCE if is_jpeg else 0)
    if image.mode not in ("1", "L"):
        raise UnreadableImage(
            path,
            f"pixels of mode {image.mode} have no grey range to scale by; save them as 8- or 16-bit grey",
        )
    return np.asarray(image.convert("L"), dtype=np.float32) / np.float32(255)


def _scale_deep(values: npt.NDArray[Any], tags: Any) -> npt.NDArray[np.float32]:
    """Scale (H, W) unsigned integers of 9 to 16 bit to [0, 1]; Pillow leaves both TIFF tags to us."""
    white = np.float32(2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1)
    grey: npt.NDArray[np.float32] = values.astype(np.float32) / white
    return 1 - grey if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey


def _opaque(path: Path, image: PIL.Image.Image) -> PIL.Image.Image:
    """Drop an alpha channel that hides nothing, and write out a palette."""
    if image.mode.startswith("I;16"):
        raise UnreadableImage(path, "16-bit grey with a transparent value; save it without")
    image = image.convert("RGBA")
    if np.asarray(image.getchannel("A")).min() < 255:
        raise UnreadableImage(path, "is partly transparent; save it on an opaque background")
    return image.convert("RGB")


def _fold(path: Path, channels: npt.NDArray[np.uint8], tolerance: int) -> npt.NDArray[np.float32]:
    """Fold (H, W, 3) equal channels into (H, W) in [0, 1]."""
    difference = int(np.ptp(channels, axis=2).max())
    if difference > tolerance:
        raise UnreadableImage(
            path,
            f"is in colour (channels differ by {difference} of 255, allowed {tolerance}); convert it to grey",
        )
    return channels[..., 1].astype(np.float32) / np.float32(255)
