"""Step 0: find the photos or get new ones, check each one, and load a photo.

Photos that lie in data/train and data/test1 are used as they are. Others are put together aside, in
one folder named after their source, such as data/google, and one renaming puts it into place. No
system renames a folder over one that holds something: nothing is replaced, no half set is there.
"""

import csv
import hashlib
import json
import os
import shutil
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from . import archives
from .archives import DRAWING, NAMES, SOURCES, PhotosError, is_junk, numeric_order, show_progress

DATA = Path("../data")  # the notebook's own folder of photos
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")  # of photos, whatever their name ends in


@dataclass
class Photos:
    """What step 0 found; the lists hold names of files that can be decoded, in numeric order."""

    train_folder: Path
    test_folder: Path
    train_files: list
    test_files: list
    answers_file: Path | None  # a table with the columns filename, label and size (in bytes)
    are_drawings: bool
    left_out: dict  # such as {"train/cat.666.jpg": "empty file"}


def get_photos(folder=None, source=None):
    """Make sure that there are checked photos, print a short report, and return a Photos.

    folder: where photos or archives lie or shall go; else what DOGS_VS_CATS_DATA says, or ../data.
    source: "kaggle", "microsoft", "google", "practice", or "auto" for the best that lies there;
        else what the environment variable DOGS_VS_CATS_SOURCE says, or "auto".
    Raises PhotosError, with a sentence or two, when the reader has to do something.
    """
    folder = Path(folder or os.environ.get("DOGS_VS_CATS_DATA") or DATA).expanduser()
    source = source or os.environ.get("DOGS_VS_CATS_SOURCE") or "auto"
    if source not in ("auto", *SOURCES):
        raise PhotosError(f"There is no source {source!r}; choose auto, {', '.join(SOURCES)}.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        photos = check(find_or_make(folder, source))
    except OSError as problem:
        raise PhotosError(
            f"Reading or writing {problem.filename or folder} failed ({problem.strerror or problem}"
            "). Look what lies there, or choose another folder. Nothing of yours was changed."
        ) from problem
    report(photos)
    return photos


def find_or_make(folder, source):
    """Return a folder whose train and test1 hold photos: one that is there, or else a new one."""
    if source == "auto" and is_set(folder):
        for archive in (folder / "train.zip", folder / "test1.zip"):
            with suppress(OSError, *archives.ZIP_ERRORS):  # it is not needed
                packed = [place for place, *_ in archives.photos_in(archive)]
                if missing := sum(not (folder / place).exists() for place in packed):
                    print(f"{missing:,} of {len(packed):,} photos in {archive} were not unpacked.")
        return folder
    for name in SOURCES if source == "auto" else [source]:
        found = archives.find_archives(folder, name)
        if found or is_set(folder / name) or source != "auto":
            return make(folder, name, found)
    try:
        return make(folder, "google")
    except PhotosError as problem:
        print(problem)
        return make(folder, "practice")


def is_set(root):
    """Whether root/train and root/test1 hold photos; raise PhotosError for half a set."""
    names = {kind: [] for kind in NAMES}
    for path in root.iterdir() if root.is_dir() else ():
        if path.name.lower() in NAMES:
            if path.name not in NAMES or not path.is_dir():
                raise PhotosError(f"{path} should be a folder called train or test1. Move it away.")
            names[path.name] = [name for name in os.listdir(path) if not is_junk(name)]
    good = [any(map(NAMES[kind].fullmatch, names[kind])) for kind in NAMES]
    if any(names.values()) and not all(good):
        raise PhotosError(
            f"{root} is half a set: {len(names['train']):,} in train, {len(names['test1']):,}"
            " in test1. Both need photos directly in them, named like cat.0.jpg and dog.0.jpg, and "
            "like 1.jpg. Add them, or move both folders away so that others can be used."
        )
    return all(good)


def make(folder, name, found=()):
    """Return folder/name with a set in it: unpacked from the archives `found`, fetched or drawn.

    Where `folder` cannot be written, archives are unpacked in a folder below DATA. What is
    unfinished lies in one that ends in the number of the process at work; the next takes it over.
    """
    import psutil  # comes with Jupyter's kernel

    target, work = folder / name, folder / f".unfinished-{name}-{os.getpid()}"
    if found and not os.access(folder, os.W_OK) and not is_set(target):
        digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
        elsewhere = DATA / f"{folder.resolve().name}-{digest}"
        elsewhere.mkdir(parents=True, exist_ok=True)
        return make(elsewhere, name, found)
    for old in folder.glob(f".unfinished-{name}-[0-9]*"):
        if not psutil.pid_exists(int(old.name.rpartition("-")[2])):
            with suppress(OSError):  # there is one already, or another run was faster
                old.rename(work)
                shutil.rmtree(work / name, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
    if not is_set(target):
        if os.path.lexists(target) and os.listdir(target):
            raise PhotosError(f"{target} is in the way of the photos. Move it elsewhere.")
        shutil.rmtree(work / name, ignore_errors=True)  # of one killed with this very number
        work.mkdir(exist_ok=True)
        try:
            if name == "practice":
                from .drawings import draw_practice_set  # seldom needed

                draw_practice_set(work / name)
            else:
                archives.unpack(found or [archives.fetch(name, work)], work / name)
            put_in_place(work / name, target)
        finally:  # also after the stop button; half an archive is kept
            shutil.rmtree(work / name, ignore_errors=True)
            with suppress(OSError):
                work.rmdir()
    shutil.rmtree(work, ignore_errors=True)
    return target


def put_in_place(aside, target):
    """Rename a folder, unless another run was faster; on Windows a scanner may be in the way."""
    for _ in range(100):
        with suppress(OSError):
            target.rmdir()  # an empty folder, which Windows does not replace
        with suppress(OSError):
            aside.rename(target)
        if is_set(target):
            return
        time.sleep(0.1)
    aside.rename(target)


def check(root):
    """Decode each photo, unless nothing has changed since the last time, and return a Photos."""
    found, left_out = {}, {}  # found: {"train/cat.0.jpg": (size in bytes, time of change)}
    for kind, pattern in NAMES.items():
        for file in os.scandir(root / kind):
            if pattern.fullmatch(file.name) and os.path.isfile(file):
                found[f"{kind}/{file.name}"] = (file.stat().st_size, file.stat().st_mtime_ns)
            elif not is_junk(file.name):
                left_out[f"{kind}/{file.name}"] = "no file with a name like the others"
    left_out |= find_faults(root, found)
    good = {kind: [] for kind in NAMES}
    for kind, name in (place.split("/") for place in found.keys() - left_out.keys()):
        good[kind].append(name)
    train, test = (sorted(names, key=numeric_order) for names in good.values())

    answers, known = root / "answers.csv", set()
    with suppress(OSError, ValueError, KeyError), answers.open(encoding="utf-8") as file:
        known = {(row["filename"], row["size"]) for row in csv.DictReader(file)}
    if not known >= {(name, str(found[f"test1/{name}"][0])) for name in test}:
        answers = None  # they belong to other photos
    are_drawings = any(DRAWING in (root / "train" / name).read_bytes() for name in train[:1])
    return Photos(root / "train", root / "test1", train, test, answers, are_drawings, left_out)


def find_faults(root, found):
    """Return {"train/cat.666.jpg": its fault}; what was checked and has not changed is sound."""
    note, places = root / "checked_photos.json", sorted(found)
    state = hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()
    with suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["state"] == state:
            places = list(known["faults"])  # tried again: the disk may have failed, not the photo
    faults = {}
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # odd photos are harmless
        reasons = pool.map(find_fault, [root / place for place in places])
        for done, (place, reason) in enumerate(zip(places, reasons, strict=True), start=1):
            faults |= {place: reason} if reason else {}
            show_progress("Checking photos", done, len(places))
    with suppress(OSError):  # where it cannot be noted, the next run checks again
        note.write_text(json.dumps({"state": state, "faults": faults}), encoding="utf-8")
    return faults


def find_fault(path):
    """Return why a file cannot be loaded as a photo, or an empty text."""
    try:
        load_photo(path, (1, 1))
    except Exception as problem:  # decoders raise all kinds
        reason = str(problem).replace(str(path), "it") or type(problem).__name__
        return reason if path.stat().st_size else "empty file"
    return ""


def load_photo(path, size):
    """Return a photo as an upright RGB picture of size (width, height), stretched to it.

    A large JPEG is decoded at a fraction of its size, which is much faster. Raises what Pillow
    raises for a file that cannot be decoded.
    """
    with Image.open(path, formats=FORMATS) as photo:
        photo.draft("RGB", (max(size), max(size)))  # square, as the photo may lie on its side
        photo.load()
        with suppress(Exception):  # spoiled EXIF data is no reason to lose a good photo
            photo = ImageOps.exif_transpose(photo)
        return photo.convert("RGB").resize(size, Image.Resampling.BILINEAR, reducing_gap=3)


def report(photos):
    """Print what was found; raise PhotosError if it is too little to learn from."""
    root, total = photos.train_folder.parent, len(photos.train_files)
    cats = sum(name[:3].lower() == "cat" for name in photos.train_files)
    faults = [f"{name!r}: {reason}" for name, reason in photos.left_out.items()]
    left_out = f"; {len(faults):,} left out: {', '.join(faults[:10])}" if faults else ""
    if min(cats, total - cats) < 5 or not photos.test_files:
        raise PhotosError(
            f"{root} holds {cats:,} cats, {total - cats:,} dogs and {len(photos.test_files):,} "
            f"test photos that can be decoded{left_out}. At least 5, 5 and 1 are needed: add some, "
            "or move train and test1 away so that others can be used."
        )
    source = root.name if root.name in SOURCES else "put there by hand"
    answers = f"; their answers are in {photos.answers_file}" if photos.answers_file else ""
    print(f"{total:,} labeled photos ({cats:,} cats, {total - cats:,} dogs) in {root / 'train'}")
    print(f"{len(photos.test_files):,} test photos in {photos.test_folder}{answers}")
    print(f"Source: {source}{left_out or '; every file can be opened'}")
    if photos.are_drawings:
        print(
            "\nTHESE ARE DRAWINGS, NOT PHOTOS. Every cell runs, but no figure says anything about\n"
            'photos. With a network, get_photos(source="google") fetches 3,000 photos. Or put an\n'
            "archive (data/README.md names them) into the folder, and run this cell again."
        )
