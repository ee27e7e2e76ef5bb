"""Step 38: load the reader's own photos, of whatever kind, from a folder."""

import warnings
from pathlib import Path

import numpy as np
from decoding import FORMATS, BadPhoto, decode
from get_photos import is_junk, printable
from PIL import Image

HEIC = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypheim", b"ftypheis", b"ftypmif1", b"ftypmsf1")


def load_own_photos(folder, size):
    """Return the names of the photos in a folder, and their pixels.

    Formats are Pillow's; phone photos are turned upright, what is transparent becomes white. A
    HEIC file can be read where the package `pillow-heif` is installed. For a file that is no
    photo, a sentence is printed that names it and says why.

    Args:
        folder: a path; it need not exist.
        size: (width, height) in pixels; photos are stretched to it.

    Returns:
        A list of file names, sorted, and a uint8 array of the shape (photos, height, width, 3).
    """
    heif_is_there = register_heif()
    names, pixels = [], []
    folder = Path(folder)
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in files:
        if is_junk(path.name):
            continue
        if path.is_dir():
            print(printable(f"{path.name} is left out: it is a folder."))
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a large photo is no attack here
                photo = decode(path, size)
        except (BadPhoto, OSError, MemoryError) as problem:
            reason = str(problem)
            unknown = isinstance(problem, BadPhoto) and not heif_is_there
            if unknown and path.read_bytes()[4:12] in HEIC:
                reason = "a HEIC photo; run %pip install pillow-heif, then restart the kernel"
            print(printable(f"{path.name} is left out: {reason}."))
            continue
        names.append(path.name)
        pixels.append(np.asarray(photo.resize(size, Image.Resampling.BILINEAR, reducing_gap=3)))
    return names, np.array(pixels, np.uint8).reshape(-1, size[1], size[0], 3)


def register_heif():
    """Let Pillow read HEIC files where `pillow-heif` is installed; return whether it is."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    if "HEIF" not in FORMATS:
        FORMATS.append("HEIF")
    return True
