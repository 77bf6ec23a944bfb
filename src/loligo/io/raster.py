"""Read PNG, JPEG, BMP and TIFF radiographs of 1, 8 or 16 bit as one grey channel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import ImageFile, ImageOps

from loligo.files import reason
from loligo.io import whole
from loligo.io.content import UnreadableImage, opened
from loligo.types import Image

MAX_PIXELS = 80_000_000
"""Largest height x width that is decoded: twice the largest radiographs, and below the size at which
Pillow warns by itself, so that its process-wide limit need not be touched."""
MAX_SIDE = 65_536
"""Longest side that is decoded: resizing takes memory by it, however narrow an image is."""
MAX_PACKED = 1_024
"""Pixels a byte that a JPEG may claim to hold; even a black one holds at most 256."""
MAX_RUN_LENGTH = 4_000_000
"""Largest height x width of a BMP in run-length code, which Pillow decodes slowly."""
MAX_BYTES = 2**30
"""Largest file that is read."""
CHROMA_TOLERANCE = 2
"""Levels of 255 by which channels of a grey JPEG may differ, since JPEG stores colour apart and rounds."""

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_FIRST = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # lengths, by which text that begins with BM is told apart
_FLOATS = 12  # bytes a pixel of float32, of what it is made small by, and of what is compared
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF tags and a value of the second


def sniff(first: bytes) -> bool:
    """Tell PNG, JPEG, BMP and TIFF by a file's first bytes."""
    bitmap = first[:2] == b"BM" and int.from_bytes(first[14:18], "little") in _BMP_HEADERS
    return bitmap or first.startswith(_FIRST)


def read(path: Path) -> Image:
    """Read one still grey image, turned upright by its EXIF orientation, its content deciding the format.

    Pixels are (1, H, W) float32, divided by the largest number that the file's bit depth can hold.
    Three equal channels are folded into one (JPEG: within ``CHROMA_TOLERANCE``). Spacing is None: these
    formats hold print resolution, not millimetres of the patient.

    Raises ``UnreadableImage`` where the file is missing, broken, cut short (see `whole`), in colour, transparent,
    of several frames, of 32-bit or float pixels, or by its header larger than ``MAX_PIXELS`` or than its bytes can
    hold.
    """
    with _decoding(path) as (image, stream):
        grey = _grey(path, image)
        stream.seek(0)
        if missing := whole.missing(stream.read(), image):
            raise UnreadableImage(path, missing)
    return Image(pixels=np.ascontiguousarray(grey[None]), source=path)


def read_labels(path: Path) -> npt.NDArray[np.bool_]:
    """Read which pixels a mask marks, (H, W) bool: those above 0, of a palette those of another number than 0.

    Raises as `read`, and for JPEG, whose compression moves edges, and a palette whose number 0 is no black.
    """
    with _decoding(path) as (image, _):
        if image.format == "JPEG" or image.info.get("compression") == "jpeg":
            raise UnreadableImage(path, "a mask cannot be JPEG, which blurs its edges; save it as PNG")
        if image.mode == "P" and not _is_grey(colours := _palette(image)):
            if colours[0, :3].any():
                shown = ", ".join(map(str, colours[0, :3]))
                raise UnreadableImage(path, f"its colour number 0 is ({shown}), not black; save it as grey, 0 unmarked")
            return np.asarray(np.asarray(ImageOps.exif_transpose(image)) > 0)
    return np.asarray(read(path).pixels[0] > 0)


def weigh(path: Path) -> int:
    """Return how many bytes it takes, at most, to decode a file and make it small, by its header; raises as `read`."""
    with _decoding(path) as (image, _):
        return path.stat().st_size + image.width * image.height * (2 * len(image.getbands()) + _FLOATS)


@contextmanager
def _decoding(path: Path) -> Iterator[tuple[PIL.Image.Image, BinaryIO]]:
    """Open an image whose header allows decoding; what goes wrong inside is ``UnreadableImage``."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # for the whole process; libraries such as WeasyPrint set it on import
    try:
        # a stream: of a path Pillow maps a plain TIFF into memory, with the sides of orientations 5 to 8 mixed up
        with opened(path) as stream, PIL.Image.open(stream, formats=_FORMATS) as image:
            _refuse_header(path, image)
            yield image, stream
    except (UnreadableImage, MemoryError):
        raise
    except PIL.Image.DecompressionBombError as error:
        raise UnreadableImage(path, f"its header asks for more than {MAX_PIXELS:,} pixels") from error
    except PIL.UnidentifiedImageError as error:
        raise UnreadableImage(path, f"its content is not {', '.join(_FORMATS)}") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ... on broken files
        raise UnreadableImage(path, _why(reason(error))) from error


def _why(said: str) -> str:
    """Say in plain words what a decoder of Pillow complains of."""
    if "truncated" in said or "not enough" in said:
        return f"is cut short ({said})"
    return "is cut short or damaged" if said.startswith("decoder error") else f"cannot be decoded ({said})"


def _refuse_header(path: Path, image: PIL.Image.Image) -> None:
    """Raise for what the header alone rules out, before any pixel is decoded."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnreadableImage(path, f"{width} x {height} is more than {MAX_PIXELS:,} pixels; make it smaller")
    if max(width, height) > MAX_SIDE:
        raise UnreadableImage(path, f"{width} x {height} has a side of more than {MAX_SIDE:,} pixels; crop it")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise UnreadableImage(path, f"its {size:,} bytes are more than {MAX_BYTES:,}; save it anew")
    if image.format == "JPEG" and width * height > MAX_PACKED * size:
        raise UnreadableImage(path, f"claims {width} x {height} pixels in {size} bytes; it is cut short")
    if "bmp_rle" in str(getattr(image, "tile", "")) and width * height > MAX_RUN_LENGTH:
        raise UnreadableImage(path, f"{width} x {height} pixels in run-length code; save it as PNG")
    if image.info.get("progressive") and (count := whole.scans(path.read_bytes())) > whole.MAX_SCANS:
        raise UnreadableImage(path, f"has {count:,} scans where {whole.MAX_SCANS} are allowed; save it anew")
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
    if image.mode == "P":
        return _looked_up(path, image)
    if image.has_transparency_data or image.mode == "PA":
        image = _opaque(path, image)
    if image.mode == "RGB":
        return _fold(path, np.asarray(image), CHROMA_TOLERANCE if is_jpeg else 0)
    if image.mode not in ("1", "L"):
        raise UnreadableImage(
            path,
            f"pixels of mode {image.mode} have no grey range to scale by; save them as 8- or 16-bit grey",
        )
    return _scaled(np.asarray(image.convert("L")), 255)


def _scale_deep(values: npt.NDArray[Any], tags: Any) -> npt.NDArray[np.float32]:
    """Scale (H, W) unsigned integers of 9 to 16 bit to [0, 1]; Pillow leaves both TIFF tags to us."""
    grey = _scaled(values, 2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1)
    return 1 - grey if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey


def _opaque(path: Path, image: PIL.Image.Image) -> PIL.Image.Image:
    """Drop an alpha channel that hides nothing, and write out a palette."""
    if image.mode.startswith("I;16"):
        raise UnreadableImage(path, "16-bit grey with a transparent value; save it without")
    image = image.convert("RGBA")
    if np.asarray(image.getchannel("A")).min() < 255:
        raise UnreadableImage(path, "is partly transparent; save it on an opaque background")
    return image.convert("RGB")


def _palette(image: PIL.Image.Image) -> npt.NDArray[np.uint8]:
    """Return the colours (256, 4) of a palette, with how opaque each is; those that no pixel has are black."""
    every = PIL.Image.frombytes("P", (256, 1), bytes(range(256)))
    every.putpalette(image.getpalette() or [])
    every.info = dict(image.info)
    used = np.array(image.histogram()) > 0
    return np.where(used[:, None], np.asarray(every.convert("RGBA"))[0], np.array([0, 0, 0, 255], np.uint8))


def _is_grey(colours: npt.NDArray[np.uint8]) -> bool:
    return not np.ptp(colours[:, :3], axis=1).any()


def _looked_up(path: Path, image: PIL.Image.Image) -> npt.NDArray[np.float32]:
    """Decode numbers of colours; a large image is never written out in colour."""
    colours = _palette(image)
    _opaque(path, PIL.Image.fromarray(colours[None]))
    return np.asarray(_fold(path, colours[None, :, :3], 0)[0][np.asarray(image)])


def _fold(path: Path, channels: npt.NDArray[np.uint8], tolerance: int) -> npt.NDArray[np.float32]:
    """Fold (H, W, 3) equal channels into (H, W) in [0, 1]."""
    red, green, blue = (channels[..., i] for i in range(3))
    difference = int((np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)).max())
    if difference > tolerance:
        raise UnreadableImage(
            path,
            f"is in colour (channels differ by {difference} of 255, allowed {tolerance}); convert it to grey",
        )
    return _scaled(green, 255)


def _scaled(values: npt.NDArray[Any], white: int) -> npt.NDArray[np.float32]:
    """Return unsigned integers as float32 in [0, 1]."""
    grey: npt.NDArray[np.float32] = values.astype(np.float32)
    grey /= np.float32(white)
    return grey
