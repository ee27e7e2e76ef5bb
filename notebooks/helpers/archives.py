"""Step 0, the archives: find them, fetch them, and unpack the photos in them."""

import random
import re
import shutil
import zipfile
import zlib
from contextlib import nullcontext
from functools import partial
from pathlib import Path, PurePosixPath

SOURCES = {  # the archive of each, the best first; Kaggle's holds train.zip and test1.zip
    "kaggle": "dogs-vs-cats.zip",
    "microsoft": "kagglecatsanddogs_5340.zip",
    "google": "cats_and_dogs_filtered.zip",
    "practice": "(drawings)",
}
ADDRESSES = {  # folders on the web that hold these archives
    "microsoft": [
        "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F"
    ],
    "google": [
        "https://download.mlcc.google.com/mledu-datasets",
        "https://storage.googleapis.com/mledu-datasets",
    ],
}
SIZES = {"microsoft": 824_887_076, "google": 68_606_236}  # bytes
NAMES = {  # of photos, in the two folders of a set: cat.0.jpg and 1.jpg
    "train": re.compile(r"(cat|dog)\.\d{1,9}\.\w{1,5}", re.ASCII | re.IGNORECASE),
    "test1": re.compile(r"\d{1,9}\.\w{1,5}", re.ASCII),
}
DRAWING = b"drawn for dogs vs. cats"  # what the file of each drawing says
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError)


class PhotosError(Exception):
    """Step 0 cannot go on; the message says what was found, where, and what to do."""

    def _render_traceback_(self):
        """Return the lines that Jupyter shows: the message, no traceback."""
        return [str(self)]


def numeric_order(name):
    """Return a sort key that puts cat.2.jpg before cat.10.jpg, and cats before dogs."""
    *label, number, _ = name.lower().split(".")
    return label, int(number), name


def is_junk(name):
    """Whether a file or folder of this name was left by a system, not by a person."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini", "__macosx")


def show_progress(label, done, total, step=1):
    """Rewrite a line such as "Checking photos: 1,250 of 25,000", a hundred times in all."""
    if done * 100 // total > (done - step) * 100 // total:
        print(f"\r{label}: {done:,} of {total:,}", end="\n" * (done == total), flush=True)


def find_archives(folder, source):
    """Return a source's archives in `folder`; a folder that one was unpacked to counts as well."""
    found = {}
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), len(path.name))):
        if path.suffix.lower() == ".zip" or path.is_dir():
            found.setdefault(stem_of(path.name), path)
    halves = [found[kind] for kind in NAMES if kind in found and not found[kind].is_dir()]
    whole = [path for stem, path in found.items() if stem == stem_of(SOURCES[source])]
    return halves if source == "kaggle" and (len(halves) == 2 or not whole) else whole


def stem_of(name):
    """Return an archive's name in small letters, without .zip and without " (1)" for a copy."""
    return re.sub(r"( \(\d+\)| - copy| copy)*(\.zip)?$", "", PurePosixPath(name).name.lower())


def unpack(archives, root):
    """Copy the photos in archives to root/train and root/test1; root is named after the source.

    Microsoft and Google have no test photos, so a tenth of the others becomes test photos.
    """
    sizes, done = {}, 0
    try:
        for archive in archives:
            sizes |= {place: size for place, size, _ in photos_in(archive)}
        kinds = {place.parent.name for place in sizes}
        if "train" not in kinds or (root.name == "kaggle" and "test1" not in kinds):
            raise PhotosError(
                f"{' and '.join(map(str, archives))}: no photos with names like train/cat.0.jpg "
                "and test1/1.jpg. Put what is missing beside it, or move it elsewhere."
            )
        free = shutil.disk_usage(root.parent).free
        if sum(sizes.values()) > free:
            needed = f"{sum(sizes.values()) / 1e6:,.0f} MB would go to {root}"
            raise PhotosError(f"{needed}, where {free / 1e6:,.0f} MB are free. Make room there.")
        for kind in kinds:
            (root / kind).mkdir(parents=True)
        for archive in archives:
            for place, _, open_file in photos_in(archive):
                if not (root / place).exists():  # the same photo twice does no harm
                    with open_file() as file, open(root / place, "xb") as copy:
                        shutil.copyfileobj(file, copy)
                    show_progress("Unpacking photos", done := done + 1, len(sizes))
    except ZIP_ERRORS as problem:
        if archive.parent == root.parent:  # it was just fetched
            archive.unlink()
        raise PhotosError(
            f"{archive} cannot be unpacked ({problem}). Fetch it again, or move it elsewhere."
        ) from problem
    if "test1" not in kinds:
        set_test_photos_aside(root)


def photos_in(archive):
    """Yield (place, size, open_file) for each photo; a place is a path such as train/cat.0.jpg.

    No path in an archive is ever written to: places are worked out from the names.
    """
    for path, size, open_file in files_in(archive, stem_of(archive.name)):
        *folders, name = PurePosixPath(path.replace("\\", "/").lower()).parts
        if NAMES["train"].fullmatch(name):
            yield PurePosixPath("train", name), size, open_file
        elif NAMES["test1"].fullmatch(name):
            if folders[-1] in ("cat", "cats", "dog", "dogs"):  # Microsoft's Cat/0.jpg
                yield PurePosixPath("train", f"{folders[-1][:3]}.{name}"), size, open_file
            elif {"test", "test1"} & {*folders}:
                yield PurePosixPath("test1", name), size, open_file


def files_in(archive, path):
    """Yield (path, size, open_file) for each file in a zip file or folder, and in Kaggle's zips."""
    is_folder = isinstance(archive, Path) and archive.is_dir()
    with nullcontext() if is_folder else zipfile.ZipFile(archive) as zipped:
        if is_folder:
            inside = [file for file in sorted(archive.rglob("*")) if file.is_file()]
            names = [str(file.relative_to(archive)) for file in inside]
            sizes = [file.stat().st_size for file in inside]
            files = zip(names, sizes, [partial(file.open, "rb") for file in inside], strict=True)
        else:
            inside = zipped.infolist()
            files = [(info.filename, info.file_size, partial(zipped.open, info)) for info in inside]
        for name, size, open_file in files:
            if not name.lower().endswith(".zip"):
                yield f"{path}/{name}", size, open_file
            elif stem_of(name) in ("dogs-vs-cats", "train", "test1", "test"):
                with open_file() as inner:  # read where it lies: it may be 550 MB
                    yield from files_in(inner, f"{path}/{stem_of(name)}")


def set_test_photos_aside(root, share=0.1, seed=42):
    """Turn a share of the cats and dogs into test photos, the same ones every time.

    Their answers go to answers.csv, with each file's size, which says which photo is meant.
    """
    chance, chosen = random.Random(seed), []
    for label in ("cat", "dog"):
        names = [path.name for path in (root / "train").glob(f"{label}.*")]
        number = round(share * len(names)) or min(1, len(names))
        chosen += chance.sample(sorted(names, key=numeric_order), number)
    chance.shuffle(chosen)
    (root / "test1").mkdir()
    lines = ["filename,label,size"]
    for number, name in enumerate(chosen, start=1):
        path = (root / "train" / name).rename(root / "test1" / f"{number}{Path(name).suffix}")
        lines.append(f"{path.name},{name[:3]},{path.stat().st_size}")
    (root / "answers.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")


def fetch(source, folder):
    """Fetch a source's archive into `folder`, going on behind what is there; return its path.

    Raises PhotosError with the reason; what has come stays for the next time.
    """
    import requests  # comes with the package notebook

    if source not in ADDRESSES:  # Kaggle's asks who you are
        raise PhotosError(f"Put {SOURCES[source]} into {folder.parent} (see data/README.md).")
    path, size, reason = folder / SOURCES[source], SIZES[source], "it broke off"
    path.touch()
    for address in ADDRESSES[source]:
        before = -1
        while before < (start := path.stat().st_size) < size:  # as long as it brings something
            before = start
            try:
                download(f"{address}/{path.name}", path, size)
            except requests.RequestException as problem:
                reason = f"{type(problem).__name__} {getattr(problem.response, 'status_code', '')}"
    if path.stat().st_size == size:
        return path  # unpacking compares the checksum of each photo in it
    if not path.stat().st_size:
        path.unlink()
    raise PhotosError(
        f"{path.name} could not be fetched ({reason.strip()}). Run this cell again to go on, or "
        "fetch it in the browser (data/README.md has the address)."
    )


def download(address, path, size):
    """Bring a file to `size` bytes, going on behind what is there; raise RequestException."""
    import requests

    start = path.stat().st_size
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-"}
    with requests.get(address, headers=headers, stream=True, timeout=15) as answer:
        answer.raise_for_status()
        start = start if answer.status_code == 206 else 0
        if start + int(answer.headers.get("Content-Length", 0)) != size:
            raise requests.RequestException("another file")  # a log-in page, perhaps
        with open(path, "ab" if start else "wb") as file:
            for block in answer.iter_content(2**14):
                file.write(block)
                show_progress(f"Fetching {path.name}", file.tell(), size, len(block))
