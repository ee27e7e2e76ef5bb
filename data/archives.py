"""Fetch archives of photos from the web and unpack them, whatever state they are in.

`get_photos.py` decides what is needed and calls `fetch` and `unpack`; nothing here is needed
when the photos lie there already.
"""

import errno
import hashlib
import lzma
import os
import re
import shutil
import stat
import struct
import sys
import threading
import time
import zipfile
import zlib
from collections import namedtuple
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath

from files import move_new

TIMEOUT = 15  # seconds that a server may keep us waiting
BLOCK = 16 * 1024  # bytes fetched at a time; a server must send as many within the timeout
LARGEST_FILE, LARGEST_TOTAL = 256 * 2**20, 10 * 2**30  # bytes that an archive may unpack to
LONGEST_NAME = 200  # characters; photos need a dozen, and systems take 255 at most
LARGEST_RATIO = 100  # times the archive's own size; photos hardly shrink at all

TRAIN_NAME = re.compile(r"(cat|dog)\.([0-9]+)\.\w+", re.ASCII | re.IGNORECASE)  # cat.0.jpg
TEST_NAME = re.compile(r"()([0-9]+)\.\w+", re.ASCII)  # 1.jpg

KAGGLE_HELP = (
    "Three things are needed: (1) the package: pip install kagglehub; (2) a token: make one at "
    "https://www.kaggle.com/settings and store it where that page says; (3) the rules accepted: "
    "https://www.kaggle.com/c/dogs-vs-cats/rules. Or fetch dogs-vs-cats.zip in the browser, from "
    "https://www.kaggle.com/c/dogs-vs-cats/data, and put it into the data folder."
)


class PhotosError(Exception):
    """Step 0 cannot go on; the message says what was found, where, and what to do."""

    def __init__(self, message):
        super().__init__(printable(message))

    def _render_traceback_(self):
        """Return the lines that IPython shows: just the message, no traceback."""
        return [str(self)]


class FetchError(Exception):
    """A download that did not work; the message is the reason in a few words."""


def printable(text):
    """Return a text with what the terminal or notebook cannot show written as \\u1234."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


class DamagedDownload(FetchError):
    """A download that came through, but is not the file that was expected."""


@dataclass(frozen=True)
class Source:
    """Where a set of photos comes from; `size` is the archive's size in bytes."""

    title: str
    archive: str = ""
    also: str = ""  # another name, in small letters, of the archive or of the folder in it
    addresses: tuple = ()
    size: int = 0
    sha256: str = ""


def fetch_from_kaggle():
    """Fetch the competition's files with kagglehub and return the folder they lie in."""
    try:
        import kagglehub  # optional, so it is not among the requirements
    except ImportError as problem:
        raise PhotosError(f"The package kagglehub is not installed. {KAGGLE_HELP}") from problem
    try:
        return Path(kagglehub.competition_download("dogs-vs-cats"))
    except Exception as problem:  # its errors share no class, and all call for the same things
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise PhotosError(f"Kaggle did not give the photos ({reason}). {KAGGLE_HELP}") from problem


def fetch(folder, spec, timeout=TIMEOUT):
    """Fetch the archive of a Source into `folder`, trying each address, and return its path.

    The archive grows as NAME.part, is checked, and gets its name at the end; what an earlier
    try or run has brought is resumed. Raises FetchError with the reason for each address, and
    PhotosError when the disk is too small or the archive has come by another way meanwhile.
    """
    part = folder / f"{spec.archive}.part"
    if size_of(part) > spec.size:
        part.unlink()  # of some other file
    need_space(folder, 2 * spec.size - size_of(part), spec.archive)
    reasons = []
    for address in spec.addresses:
        again = True
        while again:
            before = size_of(part)
            try:
                if before != spec.size:
                    download(address, part, spec.size, timeout)
                verify(part, spec)
                move_new(part, folder / spec.archive)
                return folder / spec.archive
            except FileExistsError as problem:
                raise PhotosError(
                    f"{folder / spec.archive} appeared while the same was being fetched as {part}. "
                    "Nothing was overwritten: delete one of the two, then run this again."
                ) from problem
            except DamagedDownload as problem:
                reason = problem
                part.unlink(missing_ok=True)
                again = before > 0  # an older half may be to blame, so once more from the start
            except FetchError as problem:
                reason = problem
                again = size_of(part) > before  # it broke off on the way: resume
        reasons.append(f"{address.split('/')[2]}: {reason}")
    raise FetchError("; ".join(reasons))


def download(address, part, size, timeout):
    """Bring the file `part` to `size` bytes from `address`, resuming where the server can.

    Raises FetchError when the server cannot be reached, breaks off, or offers something else.
    """
    import requests  # comes with the package notebook

    before = size_of(part)
    headers = {"Accept-Encoding": "identity"}
    if 0 < before < size:
        headers["Range"] = f"bytes={before}-"
    get = partial(requests.get, address, headers=headers, stream=True, timeout=timeout)
    try:
        response = within(timeout, get)
        response.raise_for_status()
        resumed = response.status_code == 206
        start = before if resumed else 0
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise DamagedDownload("it sent another part of the file than was asked for")
        length = int(response.headers.get("Content-Length", size - start))
        if start + length != size:  # a log-in page, perhaps: it must not replace what we have
            raise FetchError(f"it offers {start + length:,} bytes instead of {size:,}")
        next_block = partial(next, response.iter_content(BLOCK), b"")
        with (
            open(part, "ab" if resumed else "wb") as file,
            Progress(f"Fetching {part.stem}", size, start, scale=1e6, unit=" MB") as progress,
        ):
            while block := within(timeout, next_block):
                file.write(block)
                progress.add(len(block))
                if progress.done > size:
                    raise DamagedDownload(f"it sent more than {size:,} bytes")
    except requests.HTTPError as problem:
        raise FetchError(f"{response.status_code} {response.reason}") from problem
    except (TimeoutError, requests.Timeout) as problem:
        raise FetchError(f"no answer within {timeout:g} seconds") from problem
    except requests.exceptions.SSLError as problem:
        found = "its certificate is" if "certificate" in str(problem).lower() else "the line is"
        raise FetchError(
            f"{found} not safe; is the clock right, who runs the network?"
        ) from problem
    except requests.exceptions.ProxyError as problem:
        raise FetchError("the proxy of your settings (HTTPS_PROXY) does not answer") from problem
    except requests.RequestException as problem:
        arrived = size_of(part) > before
        raise FetchError("it broke off" if arrived else "it cannot be reached") from problem


def within(seconds, call):
    """Return call(), or raise TimeoutError after so many seconds.

    The timeouts of `requests` do not cover everything: a host may have a dozen addresses that
    are tried in turn, the look-up of its name has no limit, and a byte now and then counts as an
    answer. So the call is made in a thread of its own, which is left behind if it takes too long.
    """
    answer = Future()

    def run():
        try:
            answer.set_result(call())
        except Exception as problem:  # handed over to the thread that waits
            answer.set_exception(problem)

    threading.Thread(target=run, daemon=True).start()
    return answer.result(seconds)


def verify(path, spec):
    """Raise DamagedDownload unless the file has the size and the content that `spec` names."""
    if size_of(path) != spec.size:
        raise DamagedDownload(f"{size_of(path):,} bytes came instead of {spec.size:,}")
    if spec.sha256:
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != spec.sha256:
                raise DamagedDownload("its SHA-256 checksum is not the expected one")
        return
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # compares the checksum of each file in it
                raise DamagedDownload(f"{damaged} in it is damaged")
    except (*ZIP_ERRORS, OSError) as problem:
        raise DamagedDownload("what came is not a whole zip archive") from problem


def size_of(path):
    """Return a file's size in bytes; 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def need_space(folder, needed, what):
    """Raise PhotosError unless `needed` bytes are free where `folder` lies."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise PhotosError(
            f"{what} needs about {needed / 1e6:,.0f} MB in {folder}, but only {free / 1e6:,.0f} MB "
            "are free there. Make room, or choose another folder."
        )


# What zipfile raises on archives that are damaged in one way or another.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    EOFError,
    lzma.LZMAError,
    RuntimeError,
    ValueError,
    struct.error,
    zlib.error,
)

# Kaggle's two archives and the parts they hold; test.zip is that of its competition "Redux".
HALVES = {"train": ("train.zip",), "test1": ("test1.zip", "test.zip")}

# A file in an archive: `open()` gives its content; `path` is None unless it lies in a folder.
Entry = namedtuple("Entry", "name size open path")


def unpack(archives, work, wanted):
    """Copy the photos of the parts `wanted` out of `archives` into work/train and work/test1.

    An archive is a zip file or the folder that one was unpacked to. Where a photo goes is worked
    out by `place`, so that no path in an archive is ever written to. Raises PhotosError for
    archives that are cut short, damaged or unsafe, and when not all of their photos have arrived.
    """
    archives, sizes = list(archives), {}
    for archive in archives:  # the list grows: Kaggle's archive has train.zip and test1.zip in it
        with open_archive(archive) as entries:
            need_space(work, sum(entry.size for entry in entries), archive.name)
            with Progress(f"Unpacking {archive.name}", len(entries)) as progress:
                for entry in entries:
                    path = PurePosixPath(entry.name.lower())
                    half = [part for part, names in HALVES.items() if path.name in names]
                    if half and "__macosx" not in path.parts:
                        if half[0] in wanted:
                            inner = entry.path or work / path.name
                            if not entry.path:
                                copy_entry(entry, inner)
                            if inner not in archives:
                                archives.append(inner)
                    else:
                        target = place(f"{archive.stem}/{entry.name}")
                        if target and target.parts[0] in wanted:
                            copy_entry(entry, work / target)
                            sizes[work / target] = entry.size
                    progress.add(1)
        if archive.parent == work:
            archive.unlink()
    lost = [path.name for path, size in sizes.items() if not path.exists() or size_of(path) != size]
    if lost:
        raise PhotosError(
            f"{len(lost):,} of {len(sizes):,} photos, {lost[0]} among them, were gone from {work} "
            "as soon as they were unpacked, so nothing was kept. See whether another program, such "
            "as a virus scanner, works there, then run this again."
        )


@contextmanager
def open_archive(path):
    """Give the Entries of a zip file or a folder; turn what is wrong into a PhotosError."""
    if path.is_dir():
        files = sorted(Path(root, name) for root, _, names in os.walk(path) for name in names)
        yield [
            Entry(file.relative_to(path).as_posix(), size_of(file), partial(open, file, "rb"), file)
            for file in files
        ]
        return
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            if infos and min(info.header_offset for info in archive.infolist()) > 0:
                # It is the end of train.zip, in a dogs-vs-cats.zip whose own end is missing.
                raise zipfile.BadZipFile("its list of files is missing")
            refuse_unsafe(path, infos)
            yield [
                # Some Windows programs write backslashes.
                Entry(i.filename.replace("\\", "/"), i.file_size, partial(archive.open, i), None)
                for i in infos
            ]
    except NotImplementedError as problem:
        raise PhotosError(
            f"{path} is packed in a way that Python cannot unpack ({problem}). Unpack it with "
            f"another program, put the folder {path.stem} beside it, and move {path.name} away."
        ) from problem
    except (*ZIP_ERRORS, OSError) as problem:
        if isinstance(problem, OSError) and problem.errno not in (None, errno.EINVAL):
            raise  # a full disk, say; "invalid argument" means a place that the archive lacks
        with open(path, "rb") as file:
            is_page = file.read(200).lstrip().startswith(b"<")
        reason = str(problem) or "it ends too early"
        found = "a web page, not an archive" if is_page else "cut short or damaged"
        raise PhotosError(
            f"{path} is {found} ({size_of(path):,} bytes; {reason}). It was left as it is, and "
            "nothing was unpacked. Fetch it again, or move it elsewhere to use another source."
        ) from problem


def refuse_unsafe(path, infos):
    """Raise PhotosError if an archive holds something that a set of photos never holds."""
    total = sum(info.file_size for info in infos)
    for info in infos:
        name = PureWindowsPath(info.filename)  # knows both kinds of slashes, and drives
        if name.anchor or ".." in name.parts:
            reason = f"{info.filename} in it points outside the folder"
        elif stat.S_ISLNK(info.external_attr >> 16):
            reason = f"{info.filename} in it is a link"
        elif len(name.name) > LONGEST_NAME:
            reason = f"{info.filename[:60]}… in it has a name of {len(name.name):,} characters"
        elif info.flag_bits & 1:
            reason = f"{info.filename} in it is encrypted"
        elif info.file_size > LARGEST_FILE and name.suffix != ".zip":
            reason = f"{info.filename} in it unpacks to {info.file_size:,} bytes"
        elif total > min(LARGEST_TOTAL, max(LARGEST_FILE, LARGEST_RATIO * size_of(path))):
            reason = f"it unpacks to {total:,} bytes"
        else:
            continue
        raise PhotosError(
            f"{path} was not unpacked, since it is not safe: {reason}. Fetch the archive again, "
            "from one of the sources that data/README.md names."
        )


def is_junk(name):
    """Whether a file or folder of this name was left by an operating system, not by a person."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini", "__macosx")


def place(path):
    """Return where a file of an archive belongs, as train/cat.0.jpg, or None for other files.

    Kaggle names its files train/cat.0.jpg and test1/1.jpg, Google train/cats/cat.0.jpg and
    Microsoft Cat/0.jpg. Folders around these do not matter.
    """
    *folders, name = PurePosixPath(path.lower()).parts
    if any(is_junk(part) for part in (*folders, name)):
        return None
    if TRAIN_NAME.fullmatch(name):
        return PurePosixPath("train", name)
    if TEST_NAME.fullmatch(name):
        if folders[-1] in ("cat", "cats", "dog", "dogs"):
            return PurePosixPath("train", f"{folders[-1][:3]}.{name}")
        if "test" in folders or "test1" in folders:
            return PurePosixPath("test1", name)
    return None


def copy_entry(entry, target):
    """Copy one file of an archive to `target`; the same photo twice does no harm."""
    target.parent.mkdir(exist_ok=True)
    with entry.open() as file:
        if not target.exists():
            with open(target, "wb") as copy:
                shutil.copyfileobj(file, copy)
        elif target.read_bytes() != file.read():
            raise PhotosError(
                f"{entry.name} is twice in the archive, with different content, and nothing was "
                "unpacked. Fetch it again, from one of the sources that data/README.md names."
            )


class Progress(AbstractContextManager):
    """A line that is rewritten in place, in a terminal and in a notebook.

    Written to a file, it is printed once, at the end. (Keras's bar takes seconds to import, and
    the one of `rich` needs further packages in a notebook.)
    """

    def __init__(self, label, total, start=0, scale=1, unit=""):
        self.label, self.total, self.done, self.start = label, total, start, start
        self.scale, self.unit = scale, unit
        self.began = self.shown = time.monotonic()
        self.width = 0
        self.live = sys.stdout.isatty() or type(sys.stdout).__name__ == "OutStream"  # Jupyter's

    def add(self, amount):
        """Count `amount` more as done, and show it now and then."""
        self.done += amount
        if self.live and time.monotonic() - self.shown > 0.2:
            self.shown = time.monotonic()
            rest = (self.total - self.done) / (self.done - self.start)
            bar = "=" * int(20 * self.done / self.total)
            self.show(f"[{bar:.<20}] {minutes(rest * (self.shown - self.began))} left")

    def show(self, text, end=""):
        """Print the line, over the one before where that is possible."""
        digits = 0 if self.scale == 1 else 1
        done, total = (f"{n / self.scale:,.{digits}f}" for n in (self.done, self.total))
        line = f"{self.label}: {done} of {total}{self.unit} {text}"
        print(f"\r{line:<{self.width}}" if self.live else line, end=end, flush=True)
        self.width = len(line)

    def __exit__(self, *_):
        self.show(f"in {minutes(time.monotonic() - self.began)}", end="\n")


def minutes(seconds):
    """Return a time span as minutes:seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
