"""Decode whatever photos turn up: cut short, turned, gray, transparent, or in another format.

`decode` is the test of a photo as well as the way to load it: what it can decode is kept.
"""

import io
import re

import numpy as np
import PIL
from PIL import Image, ImageOps, UnidentifiedImageError

ROWS_NEEDED = 0.75  # a JPEG that is cut short is kept with at least this share of its rows
CHECK = f"2, Pillow {PIL.__version__}"  # whose verdicts hold; count up when the rules change

Image.init()
NO_PHOTOS = {  # icons, maps, films, page descriptions (one starts a program), vague signatures
    *("BUFR", "CUR", "EPS", "FITS", "FLI", "GBR", "GRIB", "HDF5", "ICNS", "ICO", "IM", "IMT"),
    *("IPTC", "MCIDAS", "MPEG", "MSP", "PCD", "PIXAR", "SPIDER", "WMF", "XBM", "XPM", "XVTHUMB"),
}
FORMATS = [name for name in Image.OPEN if name not in NO_PHOTOS]  # of these, MPO is JPEG

PADDING = b"\x55" * 64  # put behind a JPEG's data; it shows only where data was missing
SEGMENT = re.compile(rb"\xff+([\xc0-\xfe])(..)", re.DOTALL)  # of the header: marker, length
SCAN_END = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")  # the first marker behind pixels


class BadPhoto(Exception):
    """A file that cannot be decoded; the message is the reason in a few words."""


def decode(path, size):
    """Return the photo at `path` as an RGB picture; one larger than `size` stays at least that.

    A large JPEG is decoded at a half, a quarter or an eighth of its size where that is enough:
    that is much faster. Raises BadPhoto for a file that cannot be decoded; OSError where it
    cannot be read and MemoryError where memory is short, which says nothing about the photo.
    """
    data = path.read_bytes()
    if not data:
        raise BadPhoto("empty file")
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        is_jpeg = picture.format in ("JPEG", "MPO")
        try:
            picture.draft("RGB", (max(size), max(size)))  # square, as EXIF may turn the photo
            picture.load()
            if is_jpeg and gray_rows(picture.crop((0, picture.height - 1, *picture.size))):
                picture = mend(data)
        except OSError as problem:
            if "memory" in str(problem):  # Pillow's decoders have no MemoryError
                raise MemoryError(str(problem)) from problem
            if not is_jpeg:
                raise
            picture = mend(data)
        return to_rgb(upright(picture))
    except (BadPhoto, MemoryError):
        raise
    except UnidentifiedImageError:
        raise BadPhoto("not a picture that Pillow can decode") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadPhoto("too many pixels for a photo") from None
    except Exception as problem:  # decoders raise all kinds of errors, and each is a verdict
        raise BadPhoto(f"damaged ({problem})") from problem


def mend(data):
    """Return a JPEG without the rows that are missing; raise BadPhoto if these are too many.

    What is missing, the decoder fills with medium gray. So it is where the bottom is gray and
    something put behind the data changes the picture. Rows that are mostly gray are cut off.
    """
    end = scan_end(data)
    picture = opened(data)
    padded = opened(data[:end] + PADDING + data[end:])
    if np.array_equal(np.asarray(picture), np.asarray(padded)):
        return picture  # every row is there, gray or not
    rows = picture.height - gray_rows(picture)
    if rows < ROWS_NEEDED * picture.height:
        raise BadPhoto(f"cut short: {rows} of {picture.height} rows are there")
    return picture.crop((0, 0, picture.width, rows))


def opened(data):
    """Return the picture in a JPEG that need not have an end marker."""
    return Image.open(io.BytesIO(data + b"\xff\xd9"), formats=("JPEG",))


def scan_end(data):
    """Return where the pixels of a JPEG end: those of the first pass, if it has several."""
    place = 2
    while segment := SEGMENT.match(data, place):  # one after the other, up to the pixels
        place = segment.start(2) + int.from_bytes(segment[2], "big")
        if segment[1] == b"\xda":
            break
    end = SCAN_END.search(data, place)
    return end.start() if end else len(data)


def gray_rows(picture):
    """Return how many rows at the bottom are mostly of the gray that stands for nothing."""
    pixels = np.asarray(picture).reshape(picture.height, picture.width, -1)
    gray = ((pixels >= 127) & (pixels <= 129)).all(axis=2)
    filled = (gray.mean(axis=1) < 0.5).nonzero()[0]
    return picture.height - 1 - int(filled.max(initial=-1))


def upright(picture):
    """Return the picture turned as its EXIF data asks for."""
    if "exif" not in picture.info:
        return picture
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # spoiled EXIF data is no reason to lose a good photo
        return picture


def to_rgb(picture):
    """Return a picture of any kind in RGB: 16 bits scaled to 8, alpha put on white."""
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture) / 256).clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("RGB")
