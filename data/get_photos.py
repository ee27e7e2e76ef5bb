"""Get the dog and cat photos of step 0: find, fetch, unpack, check and load them.

From a shell: `python data/get_photos.py --help`. Whatever the source, the
result has Kaggle's layout: train/cat.N.jpg, train/dog.N.jpg and test1/N.jpg. A source without
an unlabeled part gives up a tenth of its photos as test1 and notes their answers in
test1_answers.csv.

Three promises:

* Nothing of the reader's is deleted or overwritten, whenever it appeared.
* New photos are put together in a folder aside and moved at the end. A run that was stopped
  at any moment is finished or cleared away by the next one; of two at once, one waits.
* A file of the right name is left out only when it cannot be decoded, never for its header. A
  JPEG that is cut short is kept when at least three quarters of its rows are there; the missing
  ones are cut off.
"""

import argparse
import csv
import errno
import json
import os
import random
import re
import shutil
import sys
import warnings
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from archives import (
    HALVES,
    TEST_NAME,
    TIMEOUT,
    TRAIN_NAME,
    FetchError,
    PhotosError,
    Progress,
    Source,
    fetch,
    fetch_from_kaggle,
    is_junk,
    printable,
    unpack,
)
from decoding import CHECK, BadPhoto, decode
from files import move_new, one_run_at_a_time, write_aside
from PIL import Image

SOURCES = {
    "kaggle": Source(
        title="Kaggle's competition dogs-vs-cats",
        archive="dogs-vs-cats.zip",
        also="dogs-vs-cats-redux-kernels-edition.zip",
    ),
    "microsoft": Source(
        title="Microsoft's copy of the 25,000 labeled photos",
        archive="kagglecatsanddogs_5340.zip",
        also="petimages",
        addresses=(
            "https://download.microsoft.com/download/3/E/1/"
            "3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip",
        ),
        size=824_887_076,
        sha256="b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
    ),
    "google": Source(
        title="Google's teaching subset of 3,000 photos",
        archive="cats_and_dogs_filtered.zip",
        addresses=(
            "https://download.mlcc.google.com/mledu-datasets/cats_and_dogs_filtered.zip",
            "https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip",
        ),
        size=68_606_236,
    ),
    "practice": Source(title="the practice set, drawn on the spot"),
}

PARTS = {"train": TRAIN_NAME, "test1": TEST_NAME}
FOLDERS = {"train": ("train",), "test1": ("test1", "test")}  # names, in any case, of a part
OTHER_PART = {"train": "test1", "test1": "train"}
COPY = re.compile(r"( \(\d+\)| - copy| copy)+(?=\.zip$|$)")  # what browsers add to a name
TEST_SHARE, SEED = 0.1, 42  # of a source without an unlabeled part, and how it is drawn
NEEDED = 3  # cats, and dogs, for the notebook to run to its end
HERE = Path(__file__).resolve().parent  # the usual folder of the photos

# Beside train and test1 in the photos' folder:
ANSWERS, NOTE, VERDICTS = "test1_answers.csv", "photos_source.json", "checked_photos.json"
UNFINISHED, FINISHED = ".get_photos_unfinished", "get_photos_finished"


@dataclass
class Photos:
    """What step 0 found.

    `source` is a key of SOURCES, or "folder" for photos that the reader put there and for a
    mixture; `sources` maps these to numbers of photos. The lists hold the names of the files that
    can be decoded, in numeric order; `left_out` maps the others ("train/cat.666.jpg") to a
    reason. `answers_file` is a CSV with the columns filename and label for the photos of test1,
    or None where the answers are not known. `arrived` has the number of files that had arrived
    for each part, where known.
    """

    source: str
    train_folder: Path
    test_folder: Path
    train_files: list = field(repr=False)
    test_files: list = field(repr=False)
    answers_file: Path | None
    left_out: dict = field(repr=False)
    sources: dict = field(repr=False)
    arrived: dict = field(repr=False)

    @property
    def are_drawings(self):
        """Whether most of these are the drawings of the practice set rather than photos."""
        return 2 * self.sources.get("practice", 0) > sum(self.sources.values())


def get_photos(folder, source="auto", timeout=TIMEOUT):
    """Make sure that `folder` holds checked photos, print a report and return a Photos.

    `source` is "auto" or a key of SOURCES; a server gets `timeout` seconds to answer. A folder
    that cannot be written to may hold photos or archives; the latter are unpacked beside this
    script. Raises PhotosError, with one clear message, when the reader has to do something.
    """
    folder = Path(folder).expanduser()
    if source not in ("auto", *SOURCES):
        raise PhotosError(f"There is no source {source!r}; choose auto, {', '.join(SOURCES)}.")
    try:
        must_be_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lying = folder  # the folder of archives
        if not os.access(folder, os.W_OK) and not all(find_part(folder, part) for part in PARTS):
            folder = HERE
            source, archives = archives_in(lying, source, list(PARTS))
            if not archives:
                raise PhotosError(
                    f"{lying} cannot be written to, and has neither train and test1 nor a fitting "
                    "archive in it (data/README.md names them). Choose another folder."
                )
        with one_run_at_a_time(folder):
            clear_up(folder)
            missing = [part for part in PARTS if not find_part(folder, part)]
            if missing:
                arrive(folder, lying, source, missing, timeout)
            photos = check_photos(folder)
    except OSError as problem:
        raise explained(problem, folder) from problem
    if not missing and source not in ("auto", photos.source):
        raise PhotosError(
            f"{folder} already holds photos ({origin(photos)}), and nothing was overwritten. To "
            f"get {title(source)}, choose another folder or move train and test1 elsewhere."
        )
    report(photos, folder)
    return photos


def explained(problem, folder):
    """Return a PhotosError that says in a sentence what an OSError means."""
    path, advice = str(problem.filename or folder), "Check that it may be read and written"
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "Make room, so that the disk is not full"
    elif problem.errno == errno.ENAMETOOLONG or (os.name == "nt" and len(path) >= 260):
        advice = "Choose a folder with a shorter path"
    return PhotosError(
        f"Reading or writing {path} failed: {why(problem)}. {advice}, then run again."
    )


def title(source):
    """Return a source's name in words."""
    return SOURCES[source].title if source in SOURCES else "put there by hand"


def origin(photos):
    """Return in words where photos came from; of a mixture, with numbers."""
    if len(photos.sources) < 2:
        return title(photos.source)
    return "; ".join(f"{count:,}: {title(name)}" for name, count in photos.sources.items())


def must_be_folder(path):
    """Raise PhotosError if something other than a folder lies there, such as a dangling link."""
    if os.path.lexists(path) and not path.is_dir():
        if path.exists():
            raise PhotosError(f"{path} is a file, not a folder. Move it elsewhere.")
        raise PhotosError(
            f"{path} is a link to a place that is not there ({os.readlink(path)}). Connect the "
            "disk that it leads to, or delete the link, then run this again."
        )


def named(folder, *names):
    """Return what lies in `folder` under one of these names, in any case; the likeliest first.

    Copies, such as "train (1).zip", come last. Raises PhotosError for a dangling link.
    """
    found = {path: COPY.sub("", path.name.lower()) for path in folder.iterdir()}
    found = {path: name for path, name in found.items() if name in names}
    for path in found:
        if not path.exists():
            must_be_folder(path)
    return sorted(found, key=lambda path: (path.name not in names, names.index(found[path]), path))


def part_folders(folder, part):
    """Return what may be the folder of a part: train, Train; test1, Test1, test."""
    return [path for path in named(folder, *FOLDERS[part]) if path.name.lower() in FOLDERS[part]]


def find_part(folder, part):
    """Return the folder that holds the photos of `part` ("train" or "test1"), or None.

    Unpacking by hand often gives train/train/, which is found as well. Raises PhotosError when
    something else lies there, since the reader may need it.
    """
    for outer in part_folders(folder, part):
        if outer.name.lower() == part:
            must_be_folder(outer)
        others = 0
        for candidate in (outer, outer / outer.name):
            names = photo_names(candidate)
            if any(PARTS[part].fullmatch(name) for name in names):
                return candidate
            others += sum(name != outer.name for name in names)
        if others and outer.name.lower() == part:
            example = "cat.0.jpg or dog.0.jpg" if part == "train" else "1.jpg"
            raise PhotosError(
                f"{outer} holds {others:,} files or folders, but no photo with a name like "
                f"{example}. Rename the photos and put them right into it, or move the folder "
                "elsewhere so that new ones can be put there."
            )
    return None


def photo_names(folder):
    """Return the names of everything in a folder but junk; none if there is no such folder."""
    return [name for name in os.listdir(folder) if not is_junk(name)] if folder.is_dir() else []


def arrive(folder, lying, source, missing, timeout):
    """Fill the parts `missing` of `folder` from archives in `lying`, or from `source`."""
    name, archives = archives_in(lying, source, missing)
    for path in (path for part in missing for path in part_folders(folder, part)):
        if path.stat().st_dev != folder.stat().st_dev:
            raise PhotosError(
                f"{path} lies on another disk than {folder}. Choose a folder on that disk for all "
                "the photos, or delete the link, then run this again."
            )
    if (not archives or lying != folder) and len(missing) == 1:
        part, there = missing[0], folder / OTHER_PART[missing[0]]
        raise PhotosError(
            f"{there} holds photos, but {folder / part} does not. Put Kaggle's {part}.zip or "
            f"dogs-vs-cats.zip into {folder}, or move {there} elsewhere to start anew."
        )
    if not archives:
        name, archives = fetch_source(folder, source, timeout)
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
        record(work, name)
        os.rename(work, folder / FINISHED)
    except BaseException:  # Ctrl-C as well
        shutil.rmtree(work, ignore_errors=True)
        raise
    clear_up(folder)


def archives_in(folder, source, missing):
    """Return a source and a list of its archives in `folder`; the list may be empty."""
    halves = {part: named(folder, *HALVES[part]) for part in missing}
    if source in ("auto", "kaggle") and all(halves.values()):
        return "kaggle", [likeliest for likeliest, *_ in halves.values()]
    for name in SOURCES if source == "auto" else [source]:
        archive, also = SOURCES[name].archive, SOURCES[name].also
        for path in named(folder, *filter(None, (archive, archive.removesuffix(".zip"), also))):
            if name == "kaggle" or len(missing) == 2:  # only Kaggle has both parts
                return name, [path]
    for part, half in halves.items() if source in ("auto", "kaggle") else ():
        if half:
            raise PhotosError(
                f"{half[0]} lies there, but {OTHER_PART[part]}.zip does not. Put "
                f"both into {folder}; https://www.kaggle.com/c/dogs-vs-cats/data has them."
            )
    used = [path for part in PARTS for path in part_folders(folder, part)]
    others = sorted(path for path in folder.iterdir() if path.name[0] not in "._")
    strangers = [p for p in others if p.suffix.lower() == ".zip" or (p.is_dir() and p not in used)]
    if source == "auto" and strangers:
        print(printable(f"Left alone, as it is none of the known archives: {listed(strangers)}"))
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
    lines = ["filename,label"]
    for number, name in enumerate(chosen, start=1):
        new_name = f"{number}{PurePosixPath(name).suffix}"
        os.replace(work / "train" / name, work / "test1" / new_name)
        lines.append(f"{new_name},{name[:3]}")
    (work / ANSWERS).write_text("\n".join([*lines, ""]), encoding="utf-8")


def record(work, source):
    """Note what arrived in `work`, file by file, and tie the answers to these very files."""
    keys = [f"{part}/{name}" for part in PARTS for name in photo_names(work / part)]
    files = {key: content_of(work / key) for key in keys}
    write_json(work / NOTE, {"sets": [{"source": source, "files": files}]})
    if source != "kaggle" and (work / ANSWERS).exists():
        lines = ["filename,label,content"]
        for name, (label, _) in read_answers(work / ANSWERS).items():
            lines.append(f"{name},{label},{files.get(f'test1/{name}')}")
        (work / ANSWERS).write_text("\n".join([*lines, ""]), encoding="utf-8")


def content_of(path):
    """Return a file's size and a checksum of its content, which tell it from others."""
    data = path.read_bytes()
    return f"{len(data)}-{zlib.crc32(data):08x}"


def clear_up(folder):
    """Finish or clear away what a run that was stopped has left in `folder`.

    UNFINISHED may hold half a set and is thrown away; FINISHED holds a whole one, of which some
    parts may have been moved to their places already. Nobody else makes folders of these names.
    Raises PhotosError, and leaves FINISHED, when other photos have appeared in these places.
    """
    if (folder / UNFINISHED).is_dir():
        shutil.rmtree(folder / UNFINISHED)
    new = folder / FINISHED
    if not new.is_dir():
        return
    sets, known, there = read_sets(new), read_sets(folder), folder
    try:
        for part in PARTS if sets else ():
            for there in part_folders(folder, part) if (new / part).is_dir() else ():
                for name in photo_names(there):
                    here, moved = new / part / name, f"{part}/{name}" in sets[0]["files"]
                    if not (os.path.samefile(here, there / name) if here.exists() else moved):
                        raise FileExistsError(errno.EEXIST, "other photos", str(there))
        write_json(folder / NOTE, {"sets": known + [one for one in sets if one not in known]})
        if (new / ANSWERS).exists():
            there = free_name(folder, (new / ANSWERS).read_bytes())
            if not there.exists():
                move_new(new / ANSWERS, there)
        # The photos for training come last: whoever sees them sees the rest as well.
        for part in ("test1", "train"):
            here, there = new / part, folder / part
            if here.is_dir() and there.is_dir():
                for name in os.listdir(here):
                    move_new(here / name, there / name)
                here.rmdir()
            elif here.is_dir():
                move_new(here, there)
    except OSError as problem:
        if problem.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        raise PhotosError(
            f"{there} got other photos while new ones were put together in {new}, and nothing was "
            f"overwritten. Delete {new.name} to keep the former, or move train and test1 elsewhere "
            "to have the new ones; then run this again."
        ) from problem
    shutil.rmtree(new)


def free_name(folder, content):
    """Return where answers of this content lie or may be put: answers of other sets stay."""
    path, number = folder / ANSWERS, 1
    while path.exists() and path.read_bytes() != content:
        number += 1
        path = folder / ANSWERS.replace(".", f"_{number}.")
    return path


def write_json(path, content):
    """Write a JSON file so that it is either there as a whole or not at all."""
    write_aside(path, lambda aside: aside.write_text(json.dumps(content), encoding="utf-8"))


def read_json(path):
    """Return the dict that a JSON file holds; an empty one if it is missing or spoiled."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def read_sets(folder):
    """Return the sets of photos that have arrived: their source, and their files' content."""
    sets = read_json(folder / NOTE).get("sets")
    return [
        one
        for one in (sets if isinstance(sets, list) else [])
        if isinstance(one, dict) and isinstance(one.get("files"), dict)
        if isinstance(one.get("source"), str)
    ]


def listed(things, most=10):
    """Return the first few things as a list in words."""
    text = ", ".join(str(thing) for thing in things[:most])
    return text + (f" and {len(things) - most:,} more" if len(things) > most else "")


def check_photos(folder):
    """Decode every file that is new or changed, and return a Photos with those that work.

    The verdicts are kept in VERDICTS as name: [size, two times, content, reason], with no reason
    for good files, so that no later run decodes them again, unless with another CHECK. What could
    not be read has no verdict and is tried again.
    """
    folders = {part: find_part(folder, part) for part in PARTS}
    kept = read_json(folder / VERDICTS)
    known = kept.get("files") if kept.get("check") == CHECK else {}
    known = known if isinstance(known, dict) else {}
    states, verdicts, left_out = {}, {}, {}
    for part, pattern in PARTS.items():
        with os.scandir(folders[part]) as files:
            for file in files:
                key = f"{part}/{file.name}"
                if is_junk(file.name) or (file.name == folders[part].name and file.is_dir()):
                    continue
                if not pattern.fullmatch(file.name):
                    left_out[key] = "unexpected name"
                elif not file.is_file():
                    left_out[key] = "not a file"
                else:
                    status = file.stat()
                    states[key] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
                    match known.get(key):
                        case [*state, str(), str()] if state == states[key]:
                            verdicts[key] = known[key]

    new = [key for key in states if key not in verdicts]
    paths = [folders[key.split("/")[0]] / key.split("/")[1] for key in new]
    for key, found in zip(new, in_threads(examine, paths, "Checking photos"), strict=True):
        verdicts[key] = [*states[key], *found]
    could_be_read = {key: verdict for key, verdict in verdicts.items() if verdict[-2]}
    if kept != (checked := {"check": CHECK, "files": could_be_read}):
        try:
            write_json(folder / VERDICTS, checked)
        except OSError:
            print(f"{folder} cannot be written to, so the next run has to check again.")

    left_out |= {key: reason for key, (*_, reason) in verdicts.items() if reason}
    contents = {key: text for key, (*_, text, reason) in verdicts.items() if not reason}
    good = {part: [] for part in PARTS}
    for part, name in (key.split("/") for key in contents):
        good[part].append(name)
    for names in good.values():
        names.sort(key=numeric_order)
    sources, arrived = recognize(contents, read_sets(folder))
    return Photos(
        source=next(iter(sources)) if len(sources) == 1 else "folder",
        train_folder=folders["train"],
        test_folder=folders["test1"],
        train_files=good["train"],
        test_files=good["test1"],
        answers_file=find_answers(folder, contents),
        left_out=dict(sorted(left_out.items())),
        sources=sources,
        arrived=arrived,
    )


def recognize(contents, sets):
    """Return how many photos are of which source, and how many arrived for each part, if known.

    A photo is of a source if one of this name and this content has arrived from there.
    """
    whole = [one for one in sets if contents.items() <= one["files"].items()]
    if whole:
        best = min(whole, key=lambda one: len(one["files"]))
        counts = Counter(key.split("/")[0] for key in best["files"])
        return {best["source"]: len(contents)}, dict(counts)
    sources = [
        next((one["source"] for one in sets if one["files"].get(key) == content), "folder")
        for key, content in contents.items()
    ]
    return dict(Counter(sources).most_common()), {}


def find_answers(folder, contents):
    """Return the path of the answers, or None where they do not cover all photos of test1.

    Answers that came with photos count for these very files. The reader's own answers go by the
    names, and count for the reader's own photos.
    """
    tests = {key.split("/")[1]: text for key, text in contents.items() if key.startswith("test1")}
    arrived = any(
        s["files"].get(f"test1/{n}") == tests[n] for s in read_sets(folder) for n in tests
    )
    unused = []
    for path in sorted(folder.glob(ANSWERS.replace(".", "*.")), reverse=True):
        try:
            answers = read_answers(path)
        except ValueError as problem:
            unused.append(
                f"{path} is not used: {problem}. Save it as a table with commas (CSV), in UTF-8, "
                "with the columns filename and label and the labels cat and dog."
            )
            continue
        ties = {answers.get(name, ("", ""))[1] == text for name, text in tests.items()}
        by_name = not arrived and all(answers.get(name, ("", ""))[1] is None for name in tests)
        if ties == {True} or by_name:
            return path
        unused.append(f"{path} is not used, as it has no answers to some of these photos.")
    for text in unused:
        print(printable(text))
    return None


def read_answers(path):
    """Return {file name: (label, content)} from a table of answers; content is None if not told.

    Raises ValueError, with the reason, for a table that is not as it must be.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        rows = list(csv.DictReader(lines))
    except (UnicodeDecodeError, csv.Error):
        raise ValueError("it is not a text in UTF-8") from None
    first = lines[0] if lines else ""
    if not {"filename", "label"} <= set(next(csv.reader([first]), ())):
        raise ValueError(f"its first line is {first[:40]!r} instead of filename,label")
    for row in rows:
        if row["label"] not in ("cat", "dog"):
            raise ValueError(f"it has the label {row['label']!r} instead of cat or dog")
    return {row["filename"]: (row["label"], row.get("content")) for row in rows}


def numeric_order(name):
    """Return a sort key that puts cat.2.jpg before cat.10.jpg, and cats before dogs."""
    label, number = (TRAIN_NAME.fullmatch(name) or TEST_NAME.fullmatch(name)).groups()
    return label.lower(), int(number), name


def examine(path):
    """Return a photo's content and its fault; no content, and why, if it could not be read."""
    try:
        content = content_of(path)
        decode(path, size=(1, 1))  # the smallest scale still reads the whole file
    except BadPhoto as problem:
        return content, str(problem)
    except (OSError, MemoryError) as problem:  # no verdict on the photo
        return "", f"could not be read this time ({why(problem)})"
    return content, ""


def why(problem):
    """Return in a few words what an OSError or a MemoryError means."""
    return getattr(problem, "strerror", None) or str(problem) or "not enough memory"


def report(photos, folder):
    """Print what was found; raise PhotosError if there is nothing to learn from."""
    kinds = Counter(name[:3].lower() for name in photos.train_files)
    cats, dogs, tests = kinds["cat"], kinds["dog"], len(photos.test_files)
    faults = [f"{name}: {reason}" for name, reason in photos.left_out.items()]
    files = "1 file" if len(faults) == 1 else f"{len(faults):,} files"
    left_out = f"; left out: {files} ({listed(faults)})" if faults else ""
    if min(cats, dogs) < NEEDED or not tests:
        raise PhotosError(
            f"{folder} holds too little that can be decoded (cats: {cats:,}, dogs: {dogs:,}, test "
            f"photos: {tests:,}{left_out}). The notebook needs {NEEDED} cats, {NEEDED} dogs and a "
            "test photo at least: add some, or move train and test1 elsewhere to start anew."
        )
    things = "drawings" if photos.source == "practice" else "photos"
    answers = f"; their answers are in {photos.answers_file}" if photos.answers_file else ""
    print(f"{cats + dogs:,} labeled {things} ({cats:,} cats, {dogs:,} dogs) in", end=" ")
    print(printable(str(photos.train_folder)))
    kind = "test" if answers else "unlabeled"
    print(printable(f"{tests:,} {kind} {things} in {photos.test_folder}{answers}"))
    print(printable(f"Source: {origin(photos)}{left_out or '; every file can be decoded'}"))
    for part, count in (("train", cats + dogs), ("test1", tests)):
        count += sum(key.startswith(part) for key in photos.left_out)
        if count < photos.arrived.get(part, 0):
            print(
                f"WARNING: {folder / part} holds {count:,} photos, but {photos.arrived[part]:,} "
                f"had arrived. For all, move train and test1 out of {folder} and run this again."
            )
    if min(cats, dogs) < 0.4 * (cats + dogs):
        print("WARNING: the two kinds are far from even, so accuracy will say little.")
    if drawings := photos.sources.get("practice"):
        total = sum(photos.sources.values())
        these = "THESE" if drawings == total else f"WARNING: {drawings:,} OF THESE {total:,}"
        print(
            f"\n{these} ARE DRAWINGS, NOT PHOTOS. Every cell runs, but no figure says anything\n"
            "about photos. To get photos, move or delete train and test1 in this folder, then\n"
            "run this again with a network, or after putting one of Kaggle's archives there:\n"
            + printable(str(folder))
        )


def load_photos(folder, filenames, size=(128, 128)):
    """Return the photos as a uint8 array of shape (number, height, width, 3).

    `size` is (width, height) in pixels, as in Pillow; photos are stretched to it. Raises
    PhotosError for a file that cannot be read or decoded.
    """
    filenames = list(filenames)
    pixels = np.empty((len(filenames), size[1], size[0], 3), np.uint8)

    def load(index):
        path = Path(folder, filenames[index])
        try:
            photo = decode(path, size)
        except (BadPhoto, OSError, MemoryError) as problem:
            raise PhotosError(
                f"{path}: {why(problem)}. If it was checked before, it has changed or cannot be "
                "read: run step 0 again."
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
    results = []
    with (
        warnings.catch_warnings(),
        Progress(label, len(items)) as progress,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        warnings.simplefilter("ignore")  # odd photos are harmless, and the verdict says enough
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for result in pool.map(work, items):
            results.append(result)
            progress.add(1)
    return results


def main():
    """Read the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Get the dog and cat photos, in Kaggle's layout, and check them.",
        epilog="The sources are explained in data/README.md.",
    )
    parser.add_argument("source", nargs="?", default="auto", choices=["auto", *SOURCES])
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent)
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
