"""Step 0: photos that lie there, archives, the web, drawings, accidents, and bad input."""

import csv
import http.server
import io
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import archives
from helpers.drawings import draw, draw_practice_set
from helpers.photos import PhotosError, get_photos, load_photo, numeric_order
from PIL import Image
from small_photos import (
    content,
    google,
    kaggle,
    labeled,
    microsoft,
    photo,
    picture,
    saved,
    unlabeled,
    write,
    zipped,
)

READY = labeled() | unlabeled()
HALVES = {"train.zip": zipped(labeled()), "test1.zip": zipped(unlabeled())}
GOOGLE = google(each=100)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Let every request fail at once, but those to the server below."""
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        value = "127.0.0.1" if name == "no_proxy" else "http://127.0.0.1:9"  # nobody is there
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.upper(), value)


def run(folder, source="auto", prelude="", **settings):
    """Start step 0 in a process of its own; the code `prelude` runs first."""
    code = f"{prelude}\nfrom helpers.photos import get_photos\n"
    code += "photos = get_photos()\nprint('found', len(photos.train_files), len(photos.test_files))"
    settings |= {"DOGS_VS_CATS_DATA": str(folder), "DOGS_VS_CATS_SOURCE": source}
    settings["PYTHONPATH"] = str(Path(archives.__file__).parents[1])
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | settings, **pipes)


def answers_of(photos):
    """Return {file name: label} from the answers."""
    with open(photos.answers_file, encoding="utf-8") as file:
        return {row["filename"]: row["label"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("name", ["data", "내 사진", "a'b&c;d"])
def test_photos_that_lie_there_are_used_as_they_are(name, tmp_path, capsys):
    junk = {"train/.DS_Store": b"x", "train/._cat.0.jpg": b"x", "test1/Thumbs.db": b"x"}
    files = {name.replace("cat.1.jpg", "Cat.1.JPG"): data for name, data in READY.items()}
    folder = write(tmp_path / name, files | junk | {"mine.txt": b"mine"})
    before = content(folder)
    photos = get_photos(folder)
    assert (photos.train_folder, photos.test_folder) == (folder / "train", folder / "test1")
    assert len(photos.train_files) == 12 and len(photos.test_files) == 4
    assert photos.left_out == {} and photos.answers_file is None and not photos.are_drawings
    after = content(folder)
    assert after.pop("checked_photos.json") == {} and after == before
    assert "12 labeled photos (6 cats, 6 dogs)" in capsys.readouterr().out


def test_files_come_in_numeric_order(tmp_path):
    numbers = [0, 1, 2, 9, 10, 11, 99, 100, 1000]
    files = {f"train/{kind}.{n}.jpg": photo() for n in numbers for kind in ("dog", "cat")}
    write(tmp_path, files | {f"test1/{n}.jpg": photo() for n in reversed(numbers)})
    photos = get_photos(tmp_path)
    assert photos.train_files == [f"{kind}.{n}.jpg" for kind in ("cat", "dog") for n in numbers]
    assert photos.test_files == [f"{n}.jpg" for n in numbers]
    assert sorted(["10.jpg", "9.jpg"], key=numeric_order) == ["9.jpg", "10.jpg"]


def test_what_is_no_photo_is_left_out_and_named(tmp_path, capsys):
    bad = {"train/cat.666.jpg": b"", "train/dog.11702.jpg": b"no picture", "train/kitten.jpg": b"x"}
    bad |= {"test1/7.jpg": photo()[:300], "train/cat.7.jpg/inner.jpg": photo()}
    good = {"train/cat.50.jpg": saved(picture(), "PNG"), "test1/8.jpg": saved(picture(), "BMP")}
    write(tmp_path, READY | bad | good)
    (tmp_path / "test1/9.jpg").symlink_to("9.jpg")
    for _ in range(2):  # the second time from the note
        photos = get_photos(tmp_path)
        left_out = {*bad, "train/cat.7.jpg", "test1/9.jpg"} - {"train/cat.7.jpg/inner.jpg"}
        assert photos.left_out.keys() == left_out
        assert photos.left_out["train/cat.666.jpg"] == "empty file"
        assert "cat.50.jpg" in photos.train_files and "8.jpg" in photos.test_files
        assert all(name in capsys.readouterr().out for name in ["train/cat.666.jpg: empty file"])
    (tmp_path / "train/cat.666.jpg").write_bytes(photo())  # a change is noticed
    assert "cat.666.jpg" in get_photos(tmp_path).train_files


def test_the_second_run_takes_little_time(tmp_path):
    """37,500 checked photos in 3 seconds, so 4,000 in a third of a second."""
    small = saved(picture(size=(8, 8)))
    write(
        tmp_path, {f"train/{kind}.{n}.jpg": small for n in range(1500) for kind in ("cat", "dog")}
    )
    write(tmp_path, {f"test1/{n}.jpg": small for n in range(1, 1001)})
    get_photos(tmp_path)
    times = []
    for _ in range(3):
        began = time.process_time()
        get_photos(tmp_path)
        times.append(time.process_time() - began)
    assert min(times) < 3 * 4000 / 37500


def test_too_few_in_train_of_what_is_in_the_archive_is_said(tmp_path, capsys):
    write(tmp_path, labeled(4) | unlabeled() | HALVES)
    get_photos(tmp_path)
    output = capsys.readouterr().out
    assert "8 of 12 photos in train.zip" in output and "test1.zip" not in output


BARE = {  # without folders in them
    "train (1).zip": zipped({Path(name).name: data for name, data in labeled().items()}),
    "test1.zip": zipped({Path(name).name: data for name, data in unlabeled().items()}),
}
ODD_PATHS = {name.replace("/", "\\"): data for name, data in READY.items()}
ODD_PATHS |= {"../../train/cat.99.jpg": b"x", "__MACOSX/train/._cat.0.jpg": b"x"}
UNPACKED = {f"dogs-vs-cats/{name}": data for name, data in READY.items()}
ARCHIVES = {  # what lies there
    "kaggle: its archive": {"dogs-vs-cats.zip": kaggle()},
    "kaggle: compressed, a copy": {"dogs-vs-cats (1).zip": kaggle(6, 4, zipfile.ZIP_DEFLATED)},
    "kaggle: its halves, without folders in them": BARE,
    "kaggle: an archive in its folder": {"dogs-vs-cats/dogs-vs-cats.zip": kaggle()},
    "kaggle: halves in its folder": {f"dogs-vs-cats/{name}": HALVES[name] for name in HALVES},
    "kaggle: an unpacked folder, and empty ones": UNPACKED | {"train/.keep": b""},
    "kaggle: odd paths": {"dogs-vs-cats.zip": zipped(ODD_PATHS)},
    "kaggle: the best of two": {"cats_and_dogs_filtered.zip": google(), **HALVES},
    "microsoft: its archive": {"kagglecatsanddogs_5340.zip": microsoft()},
    "google: its archive": {"cats_and_dogs_filtered.zip": google()},
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives_are_unpacked(case, tmp_path):
    source = case.split(":")[0]
    before = content(write(tmp_path, ARCHIVES[case]))
    photos = get_photos(tmp_path)
    root = tmp_path / source
    assert (photos.train_folder, photos.test_folder) == (root / "train", root / "test1")
    assert len(photos.train_files) == (12 if source == "kaggle" else 36)
    assert len(photos.test_files) == 4 and photos.left_out == {} and not photos.are_drawings
    assert sorted(os.listdir(root / "train")) == sorted(photos.train_files)  # photos only
    assert sorted(os.listdir(root / "test1")) == sorted(photos.test_files)
    if source == "kaggle":
        unpacked = {f"{p.parent.name}/{p.name}": p.read_bytes() for p in root.glob("*/*")}
        assert unpacked == READY
    after = {k: v for k, v in content(tmp_path).items() if Path(k).parts[0] != source}
    assert after == before and get_photos(tmp_path) == photos


@pytest.mark.parametrize("source, pack", [("microsoft", microsoft), ("google", google)])
def test_a_tenth_becomes_test_photos_the_same_every_time(source, pack, tmp_path):
    """The answers are true; no photo is in both folders; the choice is the same everywhere."""
    with zipfile.ZipFile(io.BytesIO(pack())) as archive:
        originals = {archive.read(name): name.lower() for name in archive.namelist()}
    write(tmp_path, {archives.SOURCES[source]: pack()})
    photos = get_photos(tmp_path)
    there = [(photos.test_folder / name).read_bytes() for name in photos.test_files]
    assert not {*there} & {(photos.train_folder / n).read_bytes() for n in photos.train_files}
    names = [re.sub(r".*(cat|dog)\D+(\d+).jpg", r"\1 \2", originals[data]) for data in there]
    assert names == ["dog 7", "dog 8", "cat 3", "cat 0"]
    assert [name[:3] for name in names] == list(answers_of(photos).values())


def test_broken_files_of_microsofts_archive_are_left_out(tmp_path):
    with zipfile.ZipFile(io.BytesIO(microsoft())) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files |= {"PetImages/Cat/666.jpg": b"", "PetImages/Dog/11702.jpg": b""}
    write(tmp_path, {"kagglecatsanddogs_5340.zip": zipped(files)})
    photos = get_photos(tmp_path)
    assert len(photos.train_files) + len(photos.test_files) == 40
    assert list(photos.left_out.values()) == ["empty file"] * 2


def test_answers_are_never_applied_to_other_photos(tmp_path):
    write(tmp_path / "a", {"cats_and_dogs_filtered.zip": google()})
    photos = get_photos(tmp_path / "a")
    assert photos.answers_file is not None
    moved = tmp_path / "b" / "google"
    shutil.copytree(tmp_path / "a" / "google", moved)
    assert answers_of(get_photos(tmp_path / "b")) == answers_of(photos)  # they move with them
    before = (moved / "test1" / "2.jpg").read_bytes()
    for name, data in [("2.jpg", photo(77)), ("5.jpg", photo(78))]:  # exchanged; one more
        (moved / "test1" / name).write_bytes(data)
        assert get_photos(tmp_path / "b").answers_file is None
        (moved / "test1" / "2.jpg").write_bytes(before)
    shutil.rmtree(moved / "test1")
    write(moved, unlabeled())
    assert get_photos(tmp_path / "b").answers_file is None


def encrypted():
    """Return Kaggle's archive with the mark of an encrypted file at its photos."""
    data = bytearray(zipped(READY))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.find(mark)
        while start >= 0:
            data[start + place] |= 1
            start = data.find(mark, start + 4)
    return bytes(data)


def bomb():
    """Return Kaggle's archive that claims to unpack to 3 x 4 GB."""
    data = bytearray(zipped(READY))
    start = -1
    for _ in range(3):
        start = data.find(b"PK\x01\x02", start + 1)
        data[start + 24 : start + 28] = b"\xf0\xff\xff\xff"
    return bytes(data)


MANY = kaggle(50, 50)
DAMAGED = zipped(READY).replace(photo(3)[200:220], bytes(20), 1)
CASES = {  # what lies there, or (link, where it leads), and words of the sentence
    "an archive cut short": ({"dogs-vs-cats.zip": MANY[: len(MANY) // 2]}, "cannot be unpacked"),
    "a web page": ({"dogs-vs-cats.zip": b"\n<!doctype html><p>Log in"}, "a web page"),
    "a damaged photo in it": ({"dogs-vs-cats.zip": DAMAGED}, "Bad CRC-32"),
    "encrypted": ({"dogs-vs-cats.zip": encrypted()}, "encrypted"),
    "a bomb": ({"dogs-vs-cats.zip": bomb()}, "MB would go to"),
    "nothing fitting in it": ({"dogs-vs-cats.zip": zipped({"a.jpg": photo()})}, "no photos with"),
    "only half of Kaggle's": ({"train.zip": zipped(labeled())}, "Put what is missing beside it"),
    "train without test1": (labeled() | {"dogs-vs-cats.zip": kaggle()}, "half a set: 12 files"),
    "test1 without train": (unlabeled() | {"train.zip": zipped(labeled())}, "half a set: 0 files"),
    "other names": ({"train/tom.jpg": photo(), "test1/1.jpg": photo()}, "named like cat.0.jpg"),
    "train and Train": (READY | {"Train/cat.50.jpg": photo()}, "Train should be a folder called"),
    "train is a file": (unlabeled() | {"train": b"x"}, "should be a folder"),
    "train leads nowhere": (("train", "gone"), "should be a folder"),
    "an archive that leads to itself": (("dogs-vs-cats.zip", "dogs-vs-cats.zip"), "failed"),
    "too few": ({**labeled(2), "train/cat.9.jpg": b""} | unlabeled(), "2 cats, 2 dogs and 4 test"),
    "nothing can be decoded": (dict.fromkeys(READY, b"x"), "0 cats, 0 dogs and 0 test photos"),
    "other things in the way": (
        {"kaggle/mine": b"mine", "dogs-vs-cats.zip": kaggle()},
        "in the way",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_ends_in_one_sentence_and_nothing_is_lost(case, tmp_path):
    there, words = CASES[case]
    if isinstance(there, tuple):
        (tmp_path / there[0]).symlink_to(there[1])
    else:
        write(tmp_path, there)
    before = content(tmp_path)
    with pytest.raises(PhotosError) as error:
        get_photos(tmp_path)
    (line,) = error.value._render_traceback_()  # what Jupyter shows
    assert words in line and str(tmp_path) in line and "\n" not in line
    after = content(tmp_path)
    after.pop("checked_photos.json", None)
    assert after == before


def test_a_folder_that_is_none(tmp_path):
    write(tmp_path, {"file": b"mine"})
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file", "loop", "file/below"):
        with pytest.raises(PhotosError, match=f"Reading or writing .*{name} failed"):
            get_photos(tmp_path / name)
    with pytest.raises(PhotosError, match="no source 'bing'; choose auto, kaggle, microsoft"):
        get_photos(tmp_path, "bing")
    assert content(tmp_path) == {"file": b"mine", "loop": Path("loop")}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_a_full_disk_loses_nothing(tmp_path):
    """A limit on a file's size stands for the disk: writing a photo fails half-way."""
    large = {"train/cat.9.jpg": photo() + bytes(300_000)}
    write(tmp_path, {"dogs-vs-cats.zip": zipped(READY | large)})
    before = content(tmp_path)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))"
    output = run(tmp_path, prelude=limit).communicate()[0].decode()
    assert "Make room, then run this cell again" in output.splitlines()[-1]
    assert content(tmp_path) == before
    assert len(get_photos(tmp_path).train_files) == 13


@pytest.fixture
def small_disk(tmp_path):
    """Return a function that mounts a disk, or a folder so that it cannot be written."""
    mounted = []

    def mount(folder, *options):
        folder.mkdir(exist_ok=True)
        for arguments in options:
            done = subprocess.run(["mount", *arguments, folder], capture_output=True)
            if done.returncode:
                pytest.skip("nothing can be mounted here")
            mounted.append(folder)
        return folder

    if not shutil.which("mount"):
        pytest.skip("nothing can be mounted here")
    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], capture_output=True)


def test_too_little_room_is_said_beforehand(small_disk, tmp_path):
    disk = small_disk(tmp_path / "disk", ["-t", "tmpfs", "-o", "size=1m", "none"])
    write(disk, {"dogs-vs-cats.zip": zipped(READY | {"train/cat.9.jpg": bytes(600_000)})})
    before = content(disk)
    with pytest.raises(PhotosError, match=r"MB are free. Make room on this disk"):
        get_photos(disk)
    assert content(disk) == before


def test_folders_that_cannot_be_written_never_mix(small_disk, tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    there = {"a": READY, "b": HALVES, "c": {"dogs-vs-cats.zip": kaggle(9, 5)}, "d": {"x": b"x"}}
    disks = {}
    for name, files in there.items():
        folder = write(tmp_path / f"disk {name}" / "input", files)
        disks[name] = small_disk(folder, ["--bind", str(folder)], ["-o", "remount,bind,ro"])
    assert get_photos(disks["a"]).train_folder == disks["a"] / "train"
    assert not Path("../data").exists()
    for _ in range(2):
        b, c = get_photos(disks["b"]), get_photos(disks["c"])
        assert len(b.train_files) == 12 and len(c.train_files) == 18 and len(c.test_files) == 5
        for photos in (b, c):
            assert photos.train_folder.parts[:2] == ("..", "data")
            assert photos.train_folder.parts[2].startswith("input-")
    assert len(os.listdir("../data")) == 2
    with pytest.raises(PhotosError, match="cannot be written to, and holds neither photos nor"):
        get_photos(disks["d"])


def test_odd_characters_reach_no_console(tmp_path):
    folder = write(tmp_path / "내 사진", READY | {"train/\x1b[31mred.jpg": b"x"})
    for encoding in ("ascii", "cp1252", "utf-8"):
        process = run(folder, PYTHONIOENCODING=encoding)
        output = process.communicate()[0]
        assert process.returncode == 0, output
        assert b"\x1b" not in output and b"?[31mred.jpg" in output


# Kills its own process at its n-th use of the file system below a folder.
KILLER = """
import os, signal, sys
from helpers import archives
archives.ADDRESSES["google"] = [{address!r}]; archives.SIZES["google"] = {size}
events = {{"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.listdir", "os.scandir"}}
count = 0
def kill(event, arguments):
    global count
    if event in events and {folder!r} in str(arguments[0]):
        count += 1
        if count == {moment}:
            os.kill(os.getpid(), signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
sys.addaudithook(kill)
import atexit; atexit.register(lambda: print("uses", count))
"""
SCENES = {
    "kaggle": {"train.zip": zipped(labeled(20)), "test1.zip": zipped(unlabeled(9))},
    "microsoft": {"kagglecatsanddogs_5340.zip": microsoft()},
    "google": {},
}


@pytest.mark.parametrize("scene", SCENES)
def test_killed_at_any_moment_and_run_again_it_equals_an_undisturbed_run(scene, server, tmp_path):
    def step_0(folder, moment):
        folder.mkdir(exist_ok=True)
        facts = {"address": f"{server.root}/whole", "size": len(GOOGLE)}
        process = run(folder, scene, KILLER.format(folder=str(folder), moment=moment, **facts))
        return process.communicate()[0].decode(), process.returncode

    undisturbed = write(tmp_path / "undisturbed", SCENES[scene])
    output, status = step_0(undisturbed, 0)
    assert status == 0, output
    expected, uses = content(undisturbed), int(output.split()[-1])
    assert not [name for name in expected if "unfinished" in name]
    chance = random.Random(scene)
    # The renaming into place and the clearing up are among the last uses.
    moments = [4, *chance.sample(range(5, uses), 2), *chance.sample(range(uses - 60, uses), 2)]
    for number, moment in enumerate(moments):
        folder = write(tmp_path / f"killed {number}", SCENES[scene])
        assert step_0(folder, moment)[1] != 0
        if number % 2:  # twice
            step_0(folder, chance.randrange(4, uses))
        assert step_0(folder, 0)[1] == 0 and content(folder) == expected, moment


def test_two_runs_at_once_never_accept_an_incomplete_set(tmp_path):
    write(tmp_path, {"kagglecatsanddogs_5340.zip": microsoft(60)})
    undisturbed = get_photos(shutil.copytree(tmp_path, tmp_path.with_name("undisturbed")))
    for process in [run(tmp_path) for _ in range(5)]:
        output = process.communicate()[0].decode()
        assert "found 108 12" in output, output
    assert content(tmp_path / "microsoft") == content(undisturbed.train_folder.parent)
    assert len(os.listdir(tmp_path)) == 2


def test_what_a_live_run_has_aside_is_left_alone_and_a_dead_ones_removed(tmp_path):
    write(tmp_path, {"dogs-vs-cats.zip": kaggle()})
    alive = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for process in (alive, dead):
        write(tmp_path, {f".unfinished-kaggle-{process.pid}/kaggle/train/cat.0.jpg": b"half"})
    try:
        assert len(get_photos(tmp_path).train_files) == 12
        left = [path.name for path in tmp_path.glob(".unfinished*")]
        assert left == [f".unfinished-kaggle-{alive.pid}"]
    finally:
        alive.kill()
        alive.wait()
    get_photos(tmp_path)
    assert not list(tmp_path.glob(".unfinished*"))


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves Google's archive in the way that the first folder of the path names."""

    def do_GET(self):
        way, asked = self.path.split("/")[1], self.headers.get("Range", "bytes=0-")
        self.server.asked.append((way, asked))
        start = int(asked[len("bytes=") : -1])
        if way == "missing":
            return self.send_error(404)
        body = b"<html>Please log in.</html>" if way == "page" else GOOGLE
        body = bytes(len(GOOGLE)) if way == "wrong" else body
        start = 0 if way == "page" else start
        if way == "intruder":  # the reader puts something there while it is being fetched
            write(self.server.folder, {"google/train/mine.jpg": b"mine"})
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = start + 60_000 if way == "cut" else len(body)
        self.wfile.write(body[start:end] if way != "stopped" else b"")

    def log_message(self, *_):
        """Keep quiet."""


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server on this computer; `asked` lists what was asked for."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        server.asked, server.folder = [], tmp_path
        server.root = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setitem(archives.SIZES, "google", len(GOOGLE))
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    "ways", [["whole"], ["cut"], ["missing", "whole"], ["page", "whole"], ["stopped", "cut"]]
)
def test_the_small_set_is_fetched(ways, server, tmp_path, monkeypatch):
    monkeypatch.setitem(archives.ADDRESSES, "google", [f"{server.root}/{way}" for way in ways])
    photos = get_photos(tmp_path / "data")
    assert len(photos.train_files) == 180 and len(photos.test_files) == 20
    assert os.listdir(tmp_path / "data") == ["google"] and not photos.are_drawings
    number = len(server.asked)
    assert get_photos(tmp_path / "data") == photos and len(server.asked) == number
    if "cut" in ways:
        assert ("cut", "bytes=49152-") in server.asked  # it goes on where it broke


def test_what_came_is_kept_for_the_next_run(server, tmp_path, monkeypatch):
    """Also when an address gives a web page in its place."""
    write(tmp_path, {".unfinished-google-999999999/cats_and_dogs_filtered.zip": GOOGLE[:70_000]})
    for way, reason in [("page", "RequestException"), ("missing", "404")]:
        monkeypatch.setitem(archives.ADDRESSES, "google", [f"{server.root}/{way}"])
        with pytest.raises(PhotosError, match=f"could not be fetched .*{reason}.* Run this cell"):
            get_photos(tmp_path, "google")
    monkeypatch.setitem(archives.ADDRESSES, "google", [f"{server.root}/whole"])
    assert len(get_photos(tmp_path, "google").train_files) == 180
    assert server.asked[-1] == ("whole", "bytes=70000-")


def test_damaged_downloads_are_noticed_and_fetched_again(server, tmp_path, monkeypatch):
    for way in ("wrong", "whole"):
        monkeypatch.setitem(archives.ADDRESSES, "google", [f"{server.root}/{way}"])
        if way == "wrong":
            with pytest.raises(PhotosError, match="cannot be unpacked"):
                get_photos(tmp_path, "google")
            assert os.listdir(tmp_path) == []
    assert len(get_photos(tmp_path, "google").train_files) == 180


def test_what_appears_while_photos_are_fetched_is_not_replaced(server, tmp_path, monkeypatch):
    monkeypatch.setitem(archives.ADDRESSES, "google", [f"{server.root}/intruder"])
    with pytest.raises(PhotosError, match="half a set: 1 files in train"):
        get_photos(tmp_path)
    assert content(tmp_path / "google")["train/mine.jpg"] == b"mine"


def test_kaggle_has_to_be_fetched_by_hand(tmp_path):
    with pytest.raises(PhotosError, match=r"Put dogs-vs-cats.zip into .*data/README.md"):
        get_photos(tmp_path, "kaggle")


def test_without_a_network_there_are_drawings_and_it_says_so(tmp_path, capsys):
    began = time.process_time()
    photos = get_photos(tmp_path)
    assert time.process_time() - began < 60  # 20 seconds on an ordinary processor
    assert photos.are_drawings and len(photos.train_files) == 1000 and len(photos.test_files) == 200
    output = capsys.readouterr().out
    assert "could not be fetched" in output and "ProxyError" in output
    assert "\nTHESE ARE DRAWINGS, NOT PHOTOS." in output
    cats = sum(name.startswith("cat") for name in photos.train_files)
    assert cats == 500 and sorted(answers_of(photos).values()) == ["cat"] * 100 + ["dog"] * 100
    assert get_photos(tmp_path) == photos
    assert "\nTHESE ARE DRAWINGS, NOT PHOTOS." in capsys.readouterr().out
    for kind in ("train", "test1"):  # moved elsewhere, they are drawings still
        shutil.copytree(tmp_path / "practice" / kind, tmp_path / "moved" / kind)
    assert get_photos(tmp_path / "moved").are_drawings
    write(tmp_path, {"dogs-vs-cats.zip": kaggle()})  # photos are better
    assert not get_photos(tmp_path).are_drawings

    means = [
        np.asarray(Image.open(photos.train_folder / n)).mean((0, 1)) for n in photos.train_files
    ]
    cat, dog = np.array(means[:500]), np.array(means[500:])
    assert (np.abs(cat.mean(0) - dog.mean(0)) < 0.2 * cat.std(0)).all(), "colors give it away"


def test_the_same_seed_draws_the_same_pictures(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        draw_practice_set(tmp_path / name, train=12, test=6, seed=seed)
    first, again, other = (content(tmp_path / name) for name in "abc")
    assert first == again and len({*first.values()}) == len(first) - 1  # two folders, no twins
    assert not {*first.values()} & {*other.values()} - {"folder"}
    with pytest.raises(FileExistsError):
        draw_practice_set(tmp_path / "a", train=2, test=1)
    assert content(tmp_path / "a") == first
    one = draw("dog", np.random.default_rng(1))
    assert one.mode == "RGB" and 200 <= min(one.size) <= max(one.size) <= 300


ODD = {
    "gray": saved(picture(mode="L")),
    "CMYK": saved(picture(mode="CMYK")),
    "transparent": saved(picture(mode="RGBA"), "PNG"),
    "palette": saved(picture(mode="P"), "GIF"),
    "progressive": saved(picture(size=(900, 700)), progressive=True),
    "a pixel": saved(picture(size=(1, 1))),
    "spoiled EXIF": saved(picture(), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\x01\x12"),
    "an icon": saved(picture(), "ICO"),  # which no photo is, and others of its kind are programs
    "cut short": saved(picture(size=(400, 300)))[:-900],
}


def test_what_the_check_accepts_can_be_loaded(tmp_path):
    odd = {f"test1/{n}.jpg": data for n, data in enumerate(ODD.values(), start=50)}
    photos = get_photos(write(tmp_path, READY | odd))
    refused = {list(ODD)[int(Path(name).stem) - 50] for name in photos.left_out}
    assert refused == {"an icon", "cut short"}
    for name in photos.test_files:
        loaded = load_photo(photos.test_folder / name, (20, 10))
        assert (loaded.size, loaded.mode) == ((20, 10), "RGB")
    for name in photos.left_out:
        with pytest.raises((OSError, ValueError, SyntaxError)):
            load_photo(tmp_path / name, (128, 128))


def test_photos_come_upright_and_without_jagged_edges(tmp_path):
    pixels = np.zeros((600, 400, 3), np.uint8)
    pixels[:300, :, 0] = 250  # red above, black below
    pixels[:, ::2, 1] = 200  # fine green stripes, 100 on average
    upright = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    path = tmp_path / "1.png"
    path.write_bytes(saved(upright.rotate(90, expand=True), "PNG", exif=exif))
    loaded = np.asarray(load_photo(path, (40, 60))).astype(int)
    assert loaded[:25, :, 0].min() > 240 and loaded[35:, :, 0].max() < 10
    assert np.abs(loaded[:, :, 1] - 100).max() < 20
    smooth = Image.fromarray(pixels[:, :, 0]).resize((1200, 1800)).convert("RGB")
    path.write_bytes(saved(smooth, quality=95))  # a JPEG that is decoded at a fraction of its size
    exact = np.asarray(smooth.resize((40, 60), Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(load_photo(path, (40, 60))).astype(int) - exact).mean() < 3
