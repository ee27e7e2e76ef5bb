"""Step 0: find the photos or get new ones, check each one, and load a photo.

Photos that lie in data/train and data/test1 are used as they are. Others are put together aside,
as one folder named after their source, such as data/google, with train/ and test1/ in it. What
belongs to them (answers.csv, source.txt, checked_photos.json) lies beside these two: it moves with
them, and listing them meets photos only. One renaming puts the whole into place. A system never
renames a folder over one that holds something: nothing is replaced, no half set is ever there, and
of two runs at once the slower one uses what is there.
"""

import csv
import errno
import hashlib
import json
import os
import shutil
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import PIL
from PIL import Image, ImageOps

from . import archives
from .archives import NAMES, SOURCES, PhotosError, is_junk, numeric_order, show_progress

UNREAD = "could not be read this time"  # which says nothing about the photo
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

    folder: where photos or archives lie or shall go; by default what the environment variable
        DOGS_VS_CATS_DATA says, else ../data.
    source: "kaggle", "microsoft", "google", "practice", or "auto" for the best that lies there;
        by default what DOGS_VS_CATS_SOURCE says, else "auto".
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
        is_full = problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise PhotosError(
            f"Reading or writing {problem.filename or folder} failed ({problem.strerror or problem}"
            f"). {'Make room' if is_full else 'Look what lies there'}, then run this cell again; "
            "nothing of yours was changed."
        ) from problem
    report(photos)
    return photos


def find_or_make(folder, source):
    """Return a folder whose train and test1 hold photos: one that is there, or else a new one."""
    if source == "auto" and is_set(folder):
        return folder
    for name in SOURCES if source == "auto" else [source]:
        found = archives.find_archives(folder, name)
        if found or is_set(folder / name):
            return make(folder, name, found)
    if source != "auto":
        return make(folder, source)
    try:
        return make(folder, "google")
    except archives.FetchError as problem:
        print(problem)
        return make(folder, "practice")


def is_set(root):
    """Whether root/train and root/test1 hold photos; raise PhotosError for half a set."""
    names = dict.fromkeys(NAMES, ())
    for path in root.iterdir() if root.is_dir() else ():
        if path.name.lower() in NAMES:
            if path.name not in NAMES or not path.is_dir():
                raise PhotosError(f"{path} should be a folder called train or test1. Move it away.")
            names[path.name] = [name for name in os.listdir(path) if not is_junk(name)]
    good = [any(map(NAMES[kind].fullmatch, names[kind])) for kind in NAMES]
    if any(names.values()) and not all(good):
        raise PhotosError(
            f"{root} is half a set: {len(names['train']):,} files in train, {len(names['test1']):,}"
            " in test1. Both need photos, named like cat.0.jpg and dog.0.jpg in train, 1.jpg in "
            "test1. Add them, or move both folders away so that others can be used."
        )
    return all(good)


def make(folder, name, found=()):
    """Return a folder `name` with a set: the one that is there, or a new one, made from archives.

    Without archives it is fetched or drawn. Where `folder` cannot be written, they are unpacked
    below DATA, in a folder named after where they lie. What is unfinished lies in a folder whose
    name ends in the number of the process at work; if that is dead, it is taken over by renaming.
    """
    home = folder
    if not os.access(folder, os.W_OK) and not is_set(folder / name):
        digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
        home = DATA / f"{folder.resolve().name}-{digest}"
        if not found:
            raise PhotosError(
                f"{folder} cannot be written to, and holds neither photos nor a fitting archive "
                "(data/README.md names them). Choose another folder."
            )
    target, work = home / name, home / f".unfinished-{name}-{os.getpid()}"
    if not is_set(target):
        if os.path.lexists(target) and not (target.is_dir() and not os.listdir(target)):
            raise PhotosError(f"{target} is in the way of the photos. Move it elsewhere.")
        for old in home.glob(f".unfinished-{name}-*"):
            if not work.exists() and is_dead(old):
                with suppress(OSError):  # another run was faster
                    old.rename(work)
        work.mkdir(parents=True, exist_ok=True)
        try:
            if not (work / name / "source.txt").exists():  # which is written last
                fill(work / name, found)
        except BaseException:  # the stop button as well
            shutil.rmtree(work / name, ignore_errors=True)
            with suppress(OSError):  # half an archive in it is kept
                work.rmdir()
            raise
        put_in_place(work / name, target)
    for old in home.glob(f".unfinished-{name}-*"):
        if old == work or is_dead(old):
            shutil.rmtree(old, ignore_errors=True)
    return target


def is_dead(work):
    """Whether the process that made an unfinished folder is no longer running."""
    import psutil  # comes with Jupyter's kernel

    number = work.name.rpartition("-")[2]
    return number.isdecimal() and not psutil.pid_exists(int(number))


def fill(root, found):
    """Put a set into a new folder named after its source: unpacked, fetched, or drawn."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    if root.name == "practice":
        from .drawings import draw_practice_set  # seldom needed

        draw_practice_set(root)
    else:
        archives.unpack(found or [archives.fetch(root.name, root.parent)], root)
    (root / "source.txt").write_text(root.name, encoding="utf-8")


def put_in_place(aside, target):
    """Rename a folder, unless another run was faster; on Windows a scanner may be in the way."""
    for tries in range(100):
        try:
            return aside.rename(target)
        except OSError:
            if is_set(target):
                return target
            if os.name != "nt" or tries == 99:
                raise
            with suppress(OSError):
                target.rmdir()  # an empty folder; other systems replace it
            time.sleep(0.1)


def check(root):
    """Decode each photo, unless nothing has changed since the last time, and return a Photos."""
    found, left_out = [], {}  # found: (kind, name, size in bytes, time) of each photo
    for kind, pattern in NAMES.items():
        for file in os.scandir(root / kind):
            if pattern.fullmatch(file.name) and os.path.isfile(file):
                found.append((kind, file.name, file.stat().st_size, file.stat().st_mtime_ns))
            elif not is_junk(file.name):
                left_out[f"{kind}/{file.name}"] = "no file with a name like the others"
    found.sort(key=lambda facts: (facts[0], numeric_order(facts[1])))
    left_out |= find_faults(root, found)
    good = [facts for facts in found if f"{facts[0]}/{facts[1]}" not in left_out]
    train, test = ([name for kind, name, *_ in good if kind == which] for which in NAMES)

    answers, known = root / "answers.csv", set()
    with suppress(OSError, ValueError), answers.open(encoding="utf-8") as file:
        known = {(row.get("filename"), row.get("size")) for row in csv.DictReader(file)}
    fits = known and all(
        (name, str(size)) in known for kind, name, size, _ in good if kind == "test1"
    )
    answers = answers if fits else None
    are_drawings = any(is_drawing(root / "train" / name) for name in train[:1])
    return Photos(root / "train", root / "test1", train, test, answers, are_drawings, left_out)


def is_drawing(path):
    """Whether a picture is of the practice set: each says so in its file."""
    with Image.open(path) as picture:
        return picture.info.get("comment") == archives.DRAWING


def find_faults(root, found):
    """Return {"train/cat.666.jpg": its fault}, from a note if nothing has changed since."""
    note, names = root / "checked_photos.json", [f"{kind}/{name}" for kind, name, *_ in found]
    state = hashlib.sha256(repr((PIL.__version__, found)).encode()).hexdigest()
    with suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["state"] == state:
            return known["faults"]
    faults = {}
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # odd photos are harmless
        reasons = pool.map(find_fault, [root / name for name in names])
        for done, (name, reason) in enumerate(zip(names, reasons, strict=True), start=1):
            faults |= {name: reason} if reason else {}
            show_progress("Checking photos", done, len(names))
    if not any(reason.startswith(UNREAD) for reason in faults.values()):
        with suppress(OSError):  # where it cannot be noted, the next run checks again
            note.write_text(json.dumps({"state": state, "faults": faults}), encoding="utf-8")
    return faults


def find_fault(path):
    """Return why a file cannot be loaded as a photo, or an empty text."""
    try:
        load_photo(path, (1, 1))
    except Exception as problem:  # decoders raise all kinds
        if isinstance(problem, MemoryError) or getattr(problem, "errno", None):
            return f"{UNREAD} ({type(problem).__name__})"
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
    faults = [f"{name}: {reason}" for name, reason in photos.left_out.items()]
    more = f" and {len(faults) - 10:,} more" if len(faults) > 10 else ""
    left_out = f"; left out: {', '.join(faults[:10])}{more}" if faults else ""
    if min(cats, total - cats) < 3 or not photos.test_files:
        raise PhotosError(
            f"{root} holds {cats:,} cats, {total - cats:,} dogs and {len(photos.test_files):,} "
            f"test photos that can be decoded{left_out}. At least 3, 3 and 1 are needed: add "
            "some, or move train and test1 away so that others can be used."
        )
    source, note = "put there by hand", root / "source.txt"
    if note.is_file():
        source = note.read_text(encoding="utf-8")
    answers = f"; their answers are in {photos.answers_file}" if photos.answers_file else ""
    say(f"{total:,} labeled photos ({cats:,} cats, {total - cats:,} dogs) in {photos.train_folder}")
    say(f"{len(photos.test_files):,} test photos in {photos.test_folder}{answers}")
    say(f"Source: {source}{left_out or '; every file can be decoded'}")
    for kind in NAMES:
        with suppress(OSError, *archives.ZIP_ERRORS):
            inside = archives.photos_in(root / f"{kind}.zip")
            count = sum(place.parent.name == kind for place, *_ in inside)
            if count > (there := len(os.listdir(root / kind))):
                say(f"WARNING: {root / kind} holds {there:,} of {count:,} photos in {kind}.zip.")
    if photos.are_drawings:
        say(
            "\nTHESE ARE DRAWINGS, NOT PHOTOS. Every cell runs, but no figure says anything about\n"
            'photos. With a network, get_photos(source="google") fetches 3,000 photos. Or put an\n'
            "archive (data/README.md names them) into the folder, and run this cell again."
        )


def say(text):
    """Print a text, with ? for control characters and \\u1234 for what cannot be shown."""
    text = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))
