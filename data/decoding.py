"""Decode whatever photos turn up: cut short, turned, gray, transparent, or in another format.

`decode` is the test of a photo as well as the way to load it: what it can decode is kept.
"""

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

ROWS_NEEDED = 0.75  # a JPEG that is cut short is kept with at least this share of its rows
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")


class BadPhoto(Exception):
    """A file that cannot be decoded; the message is the reason in a few words."""


def decode(path, size):
    """Return the photo at `path` as an RGB picture; one larger than `size` stays at least that.

    A large JPEG is decoded at a half, a quarter or an eighth of its size where that is enough:
    that is much faster. Raises BadPhoto.
    """
    try:
        data = path.read_bytes()
        if not data:
            raise BadPhoto("empty file")
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        kind = picture.format
        try:
            picture.draft("RGB", (max(size), max(size)))  # square, as EXIF may turn the photo
            picture.load()
        except OSError:
            if kind not in ("JPEG", "MPO"):
                raise
            picture = mend(data)
        return to_rgb(upright(picture))
    except BadPhoto:
        raise
    except FileNotFoundError:
        raise BadPhoto("there is no such file") from None
    except UnidentifiedImageError:
        raise BadPhoto("not a picture") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadPhoto("too many pixels for a photo") from None
    except Exception as problem:  # decoders raise all kinds of errors, and each is a verdict
        raise BadPhoto(f"damaged ({problem})") from problem


def mend(data):
    """Return as much of a JPEG that is cut short as is there; raise BadPhoto if too little.

    With an end marker put behind it, the decoder fills what is missing with medium gray. The rows
    at the bottom that are mostly of this color are cut off.
    """
    picture = Image.open(io.BytesIO(data + b"\xff\xd9"), formats=FORMATS)
    pixels = np.asarray(picture).reshape(picture.height, picture.width, -1)
    gray = ((pixels >= 127) & (pixels <= 129)).all(axis=2)
    filled = (gray.mean(axis=1) < 0.5).nonzero()[0]
    rows = int(filled.max(initial=-1)) + 1
    if rows < ROWS_NEEDED * picture.height:
        raise BadPhoto(f"cut short: {rows} of {picture.height} rows are there")
    return picture.crop((0, 0, picture.width, rows))


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
