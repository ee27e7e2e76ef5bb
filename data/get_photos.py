"""Get the dog and cat photos of step 0: find, fetch, unpack, check and load them.

In the notebook:

    from get_photos import get_photos, load_photos
    photos = get_photos("../data")
    pixels = load_photos(photos.train_folder, photos.train_files, size=(128, 128))

From a shell, `python data/get_photos.py --help` lists the sources. Whatever the source, the
result has Kaggle's layout: train/cat.N.jpg, train/dog.N.jpg and test1/N.jpg. A source without
an unlabeled part gives up a tenth of its photos as test1 and notes their answers in
test1_answers.csv.

Three promises:

* Nothing of the reader's is deleted or overwritten.
* New photos are put together in a folder aside and renamed at the end. A run that was stopped
  at any moment is finished or cleared away by the next one.
* A file of the right name is left out only when it cannot be decoded, never for its header. A
  JPEG that is cut short is kept when at least three quarters of its rows are there; the missing
  ones are cut off.
"""

import argparse
import csv
import json
import os
import random
import shutil
import sys
import warnings
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from archives import (
    TEST_NAME,
    TIMEOUT,
    TRAIN_NAME,
    ZIP_ERRORS,
    FetchError,
    PhotosError,
    Progress,
    Source,
    fetch,
    fetch_from_kaggle,
    is_junk,
    unpack,
)
from decoding import BadPhoto, decode
from PIL import Image

SOURCES = {
    "kaggle": Source(
        title="Kaggle's competition dogs-vs-cats",
        help="all 37,500 photos (812 MB); needs a Kaggle account and the package kagglehub",
        archive="dogs-vs-cats.zip",
        unpacked="dogs-vs-cats",
    ),
    "microsoft": Source(
        title="Microsoft's copy of the 25,000 labeled photos",
        help="the 25,000 labeled photos (825 MB); needs no account",
        archive="kagglecatsanddogs_5340.zip",
        unpacked="PetImages",
        addresses=(
            "https://download.microsoft.com/download/3/E/1/"
            "3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip",
        ),
        size=824_887_076,
        sha256="b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
    ),
    "google": Source(
        title="Google's teaching subset of 3,000 photos",
        help="3,000 of these photos (68 MB); needs no account",
        archive="cats_and_dogs_filtered.zip",
        unpacked="cats_and_dogs_filtered",
        addresses=(
            "https://download.mlcc.google.com/mledu-datasets/cats_and_dogs_filtered.zip",
            "https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip",
        ),
        size=68_606_236,
    ),
    "practice": Source(
        title="the practice set, drawn on the spot",
        help="1,200 simple drawings; needs no network, and says nothing about photos",
    ),
}
AUTO_HELP = "what lies in the folder already, else google, else practice"

PARTS = {"train": TRAIN_NAME, "test1": TEST_NAME}
OTHER_PART = {"train": "test1", "test1": "train"}
TEST_SHARE, SEED = 0.1, 42  # of a source without an unlabeled part, and how it is drawn
BATCH = 64  # photos that a thread takes at a time

# Beside train and test1 in the photos' folder:
ANSWERS, NOTE, VERDICTS = "test1_answers.csv", "photos_source.json", "checked_photos.json"
UNFINISHED, FINISHED = ".get_photos_unfinished", ".get_photos_finished"


@dataclass
class Photos:
    """What step 0 found.

    `source` is a key of SOURCES, or "folder" for photos that the reader put there. The lists
    hold the names of the files that can be decoded, in numeric order; `left_out` maps the
    others ("train/cat.666.jpg") to a reason. `answers_file` is a CSV with the columns filename
    and label for the photos of test1, or None where the answers are not known.
    """

    source: str
    train_folder: Path
    test_folder: Path
    train_files: list = field(repr=False)
    test_files: list = field(repr=False)
    answers_file: Path | None
    left_out: dict = field(repr=False)

    @property
    def are_drawings(self):
        """Whether these are the drawings of the practice set rather than photos."""
        return self.source == "practice"


# --- The one call of step 0 ----------------------------------------------------------------------


def get_photos(folder, source="auto", timeout=TIMEOUT):
    """Make sure that `folder` holds checked photos, print a report and return a Photos.

    `source` is "auto" or a key of SOURCES; a server gets `timeout` seconds to answer. Raises
    PhotosError, with one clear message, when there is something that the reader has to do.
    """
    folder = Path(folder)
    if source not in ("auto", *SOURCES):
        raise PhotosError(f"There is no source {source!r}; choose auto, {', '.join(SOURCES)}.")
    try:
        clear_up(folder)
        missing = [part for part in PARTS if not find_part(folder, part)]
        if missing:
            arrive(folder, source, missing, timeout)
        elif source not in ("auto", there := read_note(folder).get("source", "folder")):
            raise PhotosError(
                f"{folder} already holds photos ({title(there)}), and nothing was overwritten. To "
                f"get {title(source)}, choose another folder or move train and test1 elsewhere."
            )
        photos = check_photos(folder)
    except OSError as problem:
        raise PhotosError(
            f"Reading or writing {problem.filename or folder} failed: "
            f"{problem.strerror or problem}. Check that the folder may be written to and that the "
            "disk is not full, then run this again."
        ) from problem
    report(photos, folder)
    return photos


def title(source):
    """Return a source's name in words."""
    return SOURCES[source].title if source in SOURCES else "put there by hand"


def find_part(folder, part):
    """Return the folder that holds the photos of `part` ("train" or "test1"), or None.

    Unpacking by hand often gives train/train/, which is found as well. Raises PhotosError when
    something else lies there, since the reader may need it.
    """
    outer = folder / part
    if outer.exists() and not outer.is_dir():
        raise PhotosError(f"{outer} is a file, not a folder. Move it elsewhere.")
    others = 0
    for candidate in (outer, outer / part):
        names = photo_names(candidate)
        if any(PARTS[part].fullmatch(name) for name in names):
            return candidate
        others += sum(name != part for name in names)
    if others:
        example = "cat.0.jpg or dog.0.jpg" if part == "train" else "1.jpg"
        raise PhotosError(
            f"{outer} holds {others:,} files or folders, but no photo with a name like {example}. "
            "Rename the photos, or move the folder elsewhere so that new ones can be put there."
        )
    return None


def photo_names(folder):
    """Return the names of everything in a folder but junk; none if there is no such folder."""
    return [name for name in os.listdir(folder) if not is_junk(name)] if folder.is_dir() else []


# --- How photos arrive ---------------------------------------------------------------------------


def arrive(folder, source, missing, timeout):
    """Fill the parts `missing` of `folder` from archives that lie there, or from `source`."""
    folder.mkdir(parents=True, exist_ok=True)
    name, archives = archives_in(folder, source, missing)
    if not archives and len(missing) == 1:
        part, there = missing[0], folder / OTHER_PART[missing[0]]
        raise PhotosError(
            f"{there} holds photos, but {folder / part} does not. Put Kaggle's {part}.zip or "
            f"dogs-vs-cats.zip into {folder}, or move {there} elsewhere to start anew."
        )
    if not archives:
        name, archives = fetch_source(folder, source, timeout)
    if name != "kaggle" and (folder / ANSWERS).exists() and not read_note(folder):
        raise PhotosError(f"{folder / ANSWERS} would be overwritten. Move it elsewhere.")

    work = folder / UNFINISHED
    work.mkdir()
    try:
        if name == "practice":
            from practice_set import draw_practice_set  # seldom needed

            print("Drawing the practice set, which takes half a minute ...")
            draw_practice_set(work)
        else:
            unpack(archives, work, missing)
            if name != "kaggle":
                give_up_test_photos(work)
        counts = {part: len(photo_names(work / part)) for part in missing}
        if not all(counts.values()):
            found = ", ".join(f"{count:,} for {part}" for part, count in counts.items())
            raise PhotosError(
                f"{listed(archives)} was unpacked, but it holds too few photos ({found}). They "
                "need names like train/cat.0.jpg, train/dog.0.jpg and test1/1.jpg."
            )
        note = {"source": name, "answers": (work / ANSWERS).exists(), **counts}
        # With only one part missing, the other one is the reader's own.
        write_json(work / NOTE, note if len(missing) == 2 else {"source": "folder"})
        os.replace(work, folder / FINISHED)
    except BaseException:  # Ctrl-C as well
        shutil.rmtree(work, ignore_errors=True)
        raise
    clear_up(folder)


def archives_in(folder, source, missing):
    """Return a source and a list of its archives in `folder`; the list may be empty."""
    for name in SOURCES if source == "auto" else [source]:
        if name == "kaggle":
            halves = [folder / f"{part}.zip" for part in missing]
            if all(half.is_file() for half in halves):
                return name, halves
        elif len(missing) == 1:
            continue  # only Kaggle has both parts
        for path in (folder / SOURCES[name].archive, folder / SOURCES[name].unpacked):
            if path != folder and path.exists():
                return name, [path]
    if source in ("auto", "kaggle"):
        for part in missing:
            if (folder / f"{part}.zip").is_file():
                raise PhotosError(
                    f"{folder / part}.zip lies there, but {OTHER_PART[part]}.zip does not. Put "
                    f"both into {folder}; https://www.kaggle.com/c/dogs-vs-cats/data has them."
                )
    strangers = sorted(folder.glob("*.zip"))
    if source == "auto" and strangers:
        print(f"Left alone, as it is none of the known archives: {listed(strangers)}")
    return None, []


def fetch_source(folder, source, timeout):
    """Fetch `source` from the web; return the source used and a list of its archives.

    With "auto", the practice set takes over where the small set cannot be fetched.
    """
    if source == "kaggle":
        return source, [fetch_from_kaggle()]
    if source == "practice":
        return source, []
    name = "google" if source == "auto" else source
    try:
        return name, [fetch(folder, SOURCES[name], timeout)]
    except FetchError as problem:
        if source == "auto":
            print(f"No photos could be fetched ({problem}).")
            return "practice", []
        raise PhotosError(
            f"{SOURCES[name].archive} could not be fetched ({problem}). Run this again later, as "
            f"what has arrived is kept; or fetch it in the browser and put it into {folder}."
        ) from problem


def give_up_test_photos(work):
    """Turn a tenth of the labeled photos in work/train into work/test1 and an answers file.

    The tenth is drawn for each kind, so that both parts stay even, and from sorted names, so
    that the order inside the archive does not matter.
    """
    draw = random.Random(SEED)
    chosen = []
    for label in ("cat", "dog"):
        names = [name for name in photo_names(work / "train") if name.startswith(label)]
        names.sort(key=numeric_order)
        chosen += draw.sample(names, min(len(names), max(1, round(TEST_SHARE * len(names)))))
    draw.shuffle(chosen)
    (work / "test1").mkdir()
    with open(work / ANSWERS, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("filename", "label"))
        for number, name in enumerate(chosen, start=1):
            new_name = f"{number}{PurePosixPath(name).suffix}"
            os.replace(work / "train" / name, work / "test1" / new_name)
            rows.writerow((new_name, name[:3]))


def clear_up(folder):
    """Finish or clear away what a run that was stopped has left in `folder`.

    UNFINISHED may hold half a set and is thrown away; FINISHED holds a whole one, of which some
    parts may have been moved to their places already. Nobody else makes folders of these names.
    """
    if (folder / UNFINISHED).is_dir():
        shutil.rmtree(folder / UNFINISHED)
    if (folder / FINISHED).is_dir():
        move_into(folder / FINISHED, folder)


def move_into(here, there):
    """Move folder `here` to `there`; where that exists already, move what is in it instead."""
    if not there.exists():
        os.replace(here, there)
        return
    # The photos for training come last: whoever sees them sees the rest as well.
    for path in sorted(here.iterdir(), key=lambda path: (path.name == "train", path.name)):
        if path.is_dir():
            move_into(path, there / path.name)
        else:
            os.replace(path, there / path.name)
    here.rmdir()


def write_json(path, content):
    """Write a JSON file so that it is either there as a whole or not at all."""
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(json.dumps(content), encoding="utf-8")
    os.replace(aside, path)


def read_json(path):
    """Return the dict that a JSON file holds; an empty one if it is missing or spoiled."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def read_note(folder):
    """Return the note on where the photos came from; empty when there is none.

    A note does not count when more photos lie there than had arrived: then the reader has put
    other ones in their place.
    """
    note = read_json(folder / NOTE)
    counts = {part: len(photo_names(find_part(folder, part) or folder / part)) for part in PARTS}
    return {} if any(counts[part] > note.get(part, counts[part]) for part in PARTS) else note


def listed(things, most=10):
    """Return the first few things as a list in words."""
    text = ", ".join(str(thing) for thing in things[:most])
    return text + (f" and {len(things) - most:,} more" if len(things) > most else "")


# --- Checking ------------------------------------------------------------------------------------


def check_photos(folder):
    """Decode every file that is new or changed, and return a Photos with those that work.

    The verdicts are kept in VERDICTS as name: [size, time, reason], with no reason for good
    files, so that no later run decodes them again.
    """
    folders = {part: find_part(folder, part) for part in PARTS}
    known, verdicts, left_out = read_json(folder / VERDICTS), {}, {}
    for part, pattern in PARTS.items():
        with os.scandir(folders[part]) as files:
            for file in files:
                key = f"{part}/{file.name}"
                if is_junk(file.name) or (file.name == part and file.is_dir()):
                    continue
                if not pattern.fullmatch(file.name):
                    left_out[key] = "unexpected name"
                elif not file.is_file():
                    left_out[key] = "not a file"
                else:
                    status = file.stat()
                    state = [status.st_size, status.st_mtime_ns]
                    old = known.get(key)
                    fits = isinstance(old, list) and len(old) == 3 and old[:2] == state
                    verdicts[key] = old if fits else state

    new = [key for key, verdict in verdicts.items() if len(verdict) == 2]
    paths = [folders[key.split("/")[0]] / key.split("/")[1] for key in new]
    for key, reason in zip(new, in_threads(find_fault, paths, "Checking photos"), strict=True):
        verdicts[key] = [*verdicts[key], reason]
    if verdicts != known:
        try:
            write_json(folder / VERDICTS, verdicts)
        except OSError:
            print(f"{folder} cannot be written to, so the next run has to check again.")

    left_out |= {key: reason for key, (*_, reason) in verdicts.items() if reason}
    good = {part: [] for part in PARTS}
    for key in verdicts.keys() - left_out.keys():
        part, name = key.split("/")
        good[part].append(name)
    for names in good.values():
        names.sort(key=numeric_order)
    note = read_note(folder)
    return Photos(
        source=note.get("source", "folder"),
        train_folder=folders["train"],
        test_folder=folders["test1"],
        train_files=good["train"],
        test_files=good["test1"],
        answers_file=find_answers(folder, note, good["test1"]),
        left_out=dict(sorted(left_out.items())),
    )


def find_answers(folder, note, test_files):
    """Return the path of the answers, or None where they do not cover all photos of test1."""
    path = folder / ANSWERS
    if not path.is_file() or not note.get("answers", True):
        return None
    with open(path, encoding="utf-8", newline="") as file:
        answers = {row.get("filename"): row.get("label") for row in csv.DictReader(file)}
    return path if all(answers.get(name) in ("cat", "dog") for name in test_files) else None


def numeric_order(name):
    """Return a sort key that puts cat.2.jpg before cat.10.jpg, and cats before dogs."""
    label, number = (TRAIN_NAME.fullmatch(name) or TEST_NAME.fullmatch(name)).groups()
    return label.lower(), int(number), name


def find_fault(path):
    """Return why a photo cannot be decoded, in a few words; an empty string if it can."""
    try:
        decode(path, size=(1, 1))  # the smallest scale still reads the whole file
    except BadPhoto as problem:
        return str(problem)
    return ""


def report(photos, folder):
    """Print what was found; raise PhotosError if there is nothing to learn from."""
    kinds = Counter(name[:3].lower() for name in photos.train_files)
    cats, dogs, tests = kinds["cat"], kinds["dog"], len(photos.test_files)
    faults = [f"{name}: {reason}" for name, reason in photos.left_out.items()]
    files = "1 file" if len(faults) == 1 else f"{len(faults):,} files"
    left_out = f"; left out: {files} ({listed(faults)})" if faults else ""
    for count, what, where in (
        (cats, "cats", photos.train_folder),
        (dogs, "dogs", photos.train_folder),
        (tests, "photos", photos.test_folder),
    ):
        if not count:
            raise PhotosError(
                f"{where} holds no {what} that can be decoded (found: {cats:,} cats, {dogs:,} "
                f"dogs, {tests:,} test photos{left_out}). Add some, or move train and test1 out "
                f"of {folder} to start anew."
            )
    things = "drawings" if photos.are_drawings else "photos"
    answers = f"; their answers are in {photos.answers_file}" if photos.answers_file else ""
    print(f"{cats + dogs:,} labeled {things} ({cats:,} cats, {dogs:,} dogs) in", end=" ")
    print(photos.train_folder)
    kind = "test" if answers else "unlabeled"
    print(f"{tests:,} {kind} {things} in {photos.test_folder}{answers}")
    print(f"Source: {title(photos.source)}{left_out or '; every file can be decoded'}")
    for part, count in (("train", cats + dogs), ("test1", tests)):
        warn_if_half_filled(
            folder, part, count + sum(key.startswith(part) for key in photos.left_out)
        )
    if min(cats, dogs) < 0.4 * (cats + dogs):
        print("WARNING: the two kinds are far from even, so accuracy will say little.")
    if photos.are_drawings:
        print(
            "\nTHESE ARE DRAWINGS, NOT PHOTOS. Every cell runs, but no figure says anything about\n"
            f"photos. To get photos, delete train and test1 in {folder} and run this again with a\n"
            "network, or with one of the archives that data/README.md names in that folder."
        )


def warn_if_half_filled(folder, part, count):
    """Print a warning when fewer photos lie there than arrived, or than the archive beside has."""
    note = read_json(folder / NOTE)
    arrived, where = note.get(part, 0), "had arrived"
    if not note and (folder / f"{part}.zip").is_file():
        try:
            with zipfile.ZipFile(folder / f"{part}.zip") as archive:
                names = {PurePosixPath(name).name for name in archive.namelist()}
        except (OSError, *ZIP_ERRORS):
            return  # the photos lie there, so their archive is not needed
        arrived = sum(PARTS[part].fullmatch(name) is not None for name in names)
        where = f"are in {part}.zip"
    if count < arrived:
        print(
            f"WARNING: {folder / part} holds {count:,} photos, but {arrived:,} {where}. To have "
            f"all, move train and test1 out of {folder} and run this again."
        )


# --- Decoding and loading ------------------------------------------------------------------------


def load_photos(folder, filenames, size=(128, 128)):
    """Return the photos as a uint8 array of shape (number, height, width, 3).

    `size` is (width, height) in pixels, as in Pillow; photos are stretched to it. Raises
    PhotosError for a file that cannot be decoded.
    """
    filenames = list(filenames)
    pixels = np.empty((len(filenames), size[1], size[0], 3), np.uint8)

    def load(index):
        path = Path(folder, filenames[index])
        try:
            photo = decode(path, size)
        except BadPhoto as problem:
            raise PhotosError(
                f"{path}: {problem}. If it was checked before, it has changed: run step 0 again."
            ) from problem
        # Each new pixel is an average over all old ones below it, so no edge gets jagged.
        pixels[index] = photo.resize(size, Image.Resampling.BILINEAR, reducing_gap=3)

    in_threads(load, range(len(filenames)), "Loading photos")
    return pixels


def in_threads(work, items, label):
    """Return [work(item) for item in items], done in parallel threads, with a progress bar.

    Threads are enough, as Pillow lets the others run while it decodes.
    """
    if not items:
        return []
    batches = [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
    results = []
    with (
        warnings.catch_warnings(),
        Progress(label, len(items)) as progress,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        warnings.simplefilter("ignore")  # odd photos are harmless, and the verdict says enough
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for done in pool.map(lambda batch: [work(item) for item in batch], batches):
            results += done
            progress.add(len(done))
    return results


# --- From a shell --------------------------------------------------------------------------------


def main():
    """Read the command line; return the exit status."""
    choices = {"auto": AUTO_HELP} | {name: spec.help for name, spec in SOURCES.items()}
    parser = argparse.ArgumentParser(
        description="Get the dog and cat photos, in Kaggle's layout, and check them.",
        epilog="sources:\n" + "\n".join(f"  {name:<10} {text}" for name, text in choices.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source", nargs="?", default="auto", choices=choices, help="see below (default: auto)"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(sys.argv[0]).parent,
        help="where to put the photos (default: where this script lies)",
    )
    options = parser.parse_args()
    try:
        get_photos(options.folder, options.source)
    except PhotosError as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run this again to go on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
