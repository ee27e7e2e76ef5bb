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
from helpers.drawings import draw_practice_set
from helpers.photos import PhotosError, get_photos, load_photo
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


def run(folder, source="auto", prelude=""):
    """Start step 0 in a process of its own; the code `prelude` runs first."""
    code = f"{prelude}\nfrom helpers.photos import get_photos\n"
    code += "photos = get_photos()\nprint('found', len(photos.train_files), len(photos.test_files))"
    settings = {"DOGS_VS_CATS_DATA": str(folder), "DOGS_VS_CATS_SOURCE": source}
    settings["PYTHONPATH"] = str(Path(archives.__file__).parents[1])
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | settings, **pipes)


def answers_of(photos):
    """Return {file name: label} from the answers."""
    with open(photos.answers_file, encoding="utf-8") as file:
        return {row["filename"]: row["label"] for row in csv.DictReader(file)}


def test_photos_that_lie_there_are_used_as_they_are(tmp_path, capsys):
    junk = {"train/.DS_Store": b"x", "train/._cat.0.jpg": b"x", "test1/Thumbs.db": b"x"}
    files = {name.replace("cat.1.jpg", "Cat.1.JPG"): data for name, data in READY.items()}
    folder = write(tmp_path / "내 a'b&c;d", files | junk | {"mine.txt": b"mine"})
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


def test_what_is_no_photo_is_left_out_and_named(tmp_path, capsys):
    bad = {"train/cat.666.jpg": b"", "train/dog.11702.jpg": b"no picture", "train/kitten.jpg": b"x"}
    bad |= {"test1/7.jpg": photo()[:300], "train/\x1b[31mred.jpg": b"x"}
    good = {"train/cat.50.jpg": saved(picture(), "PNG"), "test1/8.jpg": saved(picture(), "BMP")}
    write(tmp_path, READY | bad | good)
    (tmp_path / "train/cat.7.jpg").mkdir()
    (tmp_path / "test1/9.jpg").symlink_to("9.jpg")
    for _ in range(2):  # the second time from the note
        photos = get_photos(tmp_path)
        assert photos.left_out.keys() == {*bad, "train/cat.7.jpg", "test1/9.jpg"}
        assert "cat.50.jpg" in photos.train_files and "8.jpg" in photos.test_files
        output = capsys.readouterr().out
        assert "7 left out: " in output and "'train/cat.666.jpg': empty file" in output
        assert "\x1b" not in output and "x1b[31mred.jpg" in output
    (tmp_path / "train/cat.666.jpg").write_bytes(photo())  # a change is noticed
    assert "cat.666.jpg" in get_photos(tmp_path).train_files


def test_the_second_run_takes_little_time(tmp_path):
    """37,500 checked photos in 3 seconds, so 4,000 in a third of a second."""
    small = saved(picture(size=(8, 8)))
    for kind in ("train/cat.", "train/dog.", "test1/"):
        write(tmp_path, {f"{kind}{n}.jpg": small for n in range(1, 1334)})
    get_photos(tmp_path)
    began = time.process_time()
    get_photos(tmp_path)
    assert time.process_time() - began < 3 * 4000 / 37500


BARE = {  # without folders in them
    "train (1).zip": zipped({Path(name).name: data for name, data in labeled().items()}),
    "test1.zip": zipped({Path(name).name: data for name, data in unlabeled().items()}),
}
ODD_PATHS = {f"..\\../{name}".replace("/t", "\\t"): data for name, data in READY.items()}
ODD_PATHS |= {"__MACOSX/train/._cat.0.jpg": b"x"}
UNPACKED = {f"dogs-vs-cats/{name}": data for name, data in READY.items()}
ARCHIVES = {  # what lies there
    "kaggle: a copy of its archive": {"dogs-vs-cats (1).zip": kaggle()},
    "kaggle: its halves, without folders in them": BARE,
    "kaggle: an archive in its folder": {"dogs-vs-cats/dogs-vs-cats.zip": kaggle()},
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


def patched(place, value, files=READY):
    """Return Kaggle's archive with other bytes at a place of each entry in its table."""
    entry = b"(PK\x01\x02.{%d})" % (place - 4) + b"." * len(value)
    return re.sub(entry, lambda found: found[1] + value, zipped(files), flags=re.DOTALL)


MANY = READY | {f"train/cat.{n}.jpg": b"" for n in range(2000)}  # 4 GB each, more than fits
DAMAGED = zipped(READY).replace(photo(3)[200:220], bytes(20), 1)
CASES = {  # what lies there, and words of the sentence
    "an archive cut short": ({"dogs-vs-cats.zip": zipped(READY)[:-99]}, "cannot be unpacked"),
    "a web page": ({"dogs-vs-cats.zip": b"<!doctype html><p>Log in"}, "File is not a zip file"),
    "a damaged photo in it": ({"dogs-vs-cats.zip": DAMAGED}, "Bad CRC-32"),
    "encrypted": ({"dogs-vs-cats.zip": patched(8, b"\1")}, "encrypted"),
    "a bomb": ({"dogs-vs-cats.zip": patched(24, b"\xf0\xff\xff\xff", MANY)}, "MB would go to"),
    "nothing fitting in it": ({"dogs-vs-cats.zip": zipped({"a.jpg": photo()})}, "no photos with"),
    "only half of Kaggle's": ({"train.zip": zipped(labeled())}, "Put what is missing beside it"),
    "train without test1": (labeled() | {"dogs-vs-cats.zip": kaggle()}, "half a set: 12 in train"),
    "other names": ({"train/tom.jpg": photo(), "test1/1.jpg": photo()}, "named like cat.0.jpg"),
    "train and Train": (READY | {"Train/cat.50.jpg": photo()}, "Train should be a folder called"),
    "train is a file": (unlabeled() | {"train": b"x"}, "should be a folder"),
    "too few": ({**labeled(2), "train/cat.9.jpg": b""} | unlabeled(), "2 cats, 2 dogs and 4 test"),
    "in the way": ({"kaggle/mine": b"x", "dogs-vs-cats.zip": kaggle()}, "in the way of the photos"),
}


def test_photos_that_were_not_unpacked_are_told(tmp_path, capsys):
    write(tmp_path, READY | {"train.zip": zipped(labeled(20))})
    assert len(get_photos(tmp_path).train_files) == 12
    said = capsys.readouterr().out
    assert f"28 of 40 photos in {tmp_path / 'train.zip'} were not unpacked." in said


@pytest.mark.parametrize("case", CASES)
def test_bad_input_ends_in_one_sentence_and_nothing_is_lost(case, tmp_path):
    there, words = CASES[case]
    before = content(write(tmp_path, there))
    with pytest.raises(PhotosError) as error:
        get_photos(tmp_path)
    (line,) = error.value._render_traceback_()  # what Jupyter shows
    assert words in line and str(tmp_path) in line and "\n" not in line
    after = content(tmp_path)
    after.pop("checked_photos.json", None)
    assert after == before


def test_a_folder_that_is_none_and_a_wrong_source(tmp_path):
    write(tmp_path, {"file": b"mine"})
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file", "loop", "file/below"):
        with pytest.raises(PhotosError, match=f"Reading or writing .*{name} failed"):
            get_photos(tmp_path / name)
    for source, words in {"bing": "choose auto, kaggle", "kaggle": "Put dogs-vs-cats.zip"}.items():
        with pytest.raises(PhotosError, match=words):
            get_photos(tmp_path, source)
    assert content(tmp_path) == {"file": b"mine", "loop": Path("loop")}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_a_full_disk_loses_nothing(tmp_path):
    """A limit on a file's size stands for the disk: writing a photo fails half-way."""
    large = zipped(READY | {"train/cat.9.jpg": photo() + bytes(300_000)})
    before = content(write(tmp_path, {"dogs-vs-cats.zip": large}))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))"
    output = run(tmp_path, prelude=limit).communicate()[0].decode()
    assert "failed (File too large). Look what lies there" in output.splitlines()[-1]
    assert content(tmp_path) == before
    assert len(get_photos(tmp_path).train_files) == 13


@pytest.fixture
def read_only(tmp_path, request):
    """Return a function that makes a folder that cannot be written, and holds files."""

    def make(name, files):
        folder = write(tmp_path / name / "input", files)
        for options in (["--bind", folder], ["-o", "remount,bind,ro"]):
            try:
                subprocess.run(["mount", *options, folder], capture_output=True, check=True)
            except (OSError, subprocess.CalledProcessError):
                pytest.skip("nothing can be mounted here")
            request.addfinalizer(lambda: subprocess.run(["umount", folder], capture_output=True))
        return folder

    return make


def test_folders_that_cannot_be_written_never_mix(read_only, tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    folder = read_only("a", READY)
    assert get_photos(folder).train_folder == folder / "train" and not Path("../data").exists()
    b, c = read_only("b", HALVES), read_only("c", {"dogs-vs-cats.zip": kaggle(9, 5)})
    for _ in range(2):
        for folder, count in ((b, 12), (c, 18)):
            photos = get_photos(folder)
            assert len(photos.train_files) == count
            assert str(photos.train_folder).startswith("../data/input-")
    assert len(os.listdir("../data")) == 2
    with pytest.raises(PhotosError, match=r"Read-only.* choose another folder"):
        get_photos(read_only("d", {"x": b"x"}))


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
    "google": {},
}


@pytest.mark.parametrize("scene", SCENES)
def test_killed_at_any_moment_and_run_again_it_equals_an_undisturbed_run(scene, server, tmp_path):
    def step_0(folder, moment):
        folder.mkdir(exist_ok=True)
        facts = {"address": server.root, "size": len(GOOGLE)}
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


def test_what_a_live_run_has_aside_is_left_alone(tmp_path):
    aside = f".unfinished-kaggle-{os.getppid()}"
    write(tmp_path, {"dogs-vs-cats.zip": kaggle(), f"{aside}/kaggle/train/cat.0.jpg": b"half"})
    assert len(get_photos(tmp_path).train_files) == 12
    assert content(tmp_path / aside)["kaggle/train/cat.0.jpg"] == b"half"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves Google's archive in the way that the server's `way` names."""

    def do_GET(self):
        way, asked = self.server.way, self.headers.get("Range")
        if self.path.startswith("/gone"):
            return self.send_error(404)
        self.server.asked.append(asked)
        if way == "missing":
            return self.send_error(404)
        if way == "intruder":  # the reader puts something there while it is being fetched
            write(self.server.folder, {"google/train/mine.jpg": b"mine"})
        body = {"page": b"<html>Log in.</html>", "wrong": bytes(len(GOOGLE))}.get(way, GOOGLE)
        start = 0 if way == "page" else int(asked[len("bytes=") : -1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : start + 60_000 if way == "cut" else None])

    def log_message(self, *_):
        """Keep quiet."""


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server on this computer; `way` is how it serves, `asked` lists what was asked for."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.way, server.asked, server.folder = "whole", [], tmp_path
        server.root = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setitem(archives.ADDRESSES, "google", [server.root + "/gone", server.root])
        monkeypatch.setitem(archives.SIZES, "google", len(GOOGLE))
        yield server
        server.shutdown()


def test_the_small_set_is_fetched_going_on_where_it_broke(server, tmp_path):
    server.way = "cut"
    photos = get_photos(tmp_path / "data")
    assert len(photos.train_files) == 180 and len(photos.test_files) == 20
    assert os.listdir(tmp_path / "data") == ["google"] and not photos.are_drawings
    assert server.asked[:2] == ["bytes=0-", "bytes=49152-"]
    server.asked.clear()
    assert get_photos(tmp_path / "data") == photos and not server.asked


def test_what_came_is_kept_for_the_next_run_unless_it_is_damaged(server, tmp_path):
    write(tmp_path, {".unfinished-google-999999999/cats_and_dogs_filtered.zip": GOOGLE[:70_000]})
    ways = {"missing": "404.* Run this cell again", "page": "could not", "wrong": "not a zip file"}
    for server.way, words in ways.items():
        with pytest.raises(PhotosError, match=words):
            get_photos(tmp_path, "google")
        assert server.asked[-1] == "bytes=70000-"
    assert os.listdir(tmp_path) == []
    server.way = "whole"
    assert len(get_photos(tmp_path, "google").train_files) == 180


def test_what_appears_while_photos_are_fetched_is_not_replaced(server, tmp_path):
    server.way = "intruder"
    with pytest.raises(PhotosError, match="half a set: 1 in train"):
        get_photos(tmp_path, "google")
    assert content(tmp_path / "google")["train/mine.jpg"] == b"mine"


def test_without_a_network_there_are_drawings_and_it_says_so(tmp_path, capsys):
    photos = get_photos(tmp_path)
    assert photos.are_drawings and len(photos.train_files) == 1000 and len(photos.test_files) == 200
    output = capsys.readouterr().out
    assert "could not be fetched" in output and "ProxyError" in output
    assert "\nTHESE ARE DRAWINGS, NOT PHOTOS." in output
    assert sorted(answers_of(photos).values()) == ["cat"] * 100 + ["dog"] * 100
    assert get_photos(tmp_path) == photos
    assert "\nTHESE ARE DRAWINGS, NOT PHOTOS." in capsys.readouterr().out
    for kind in ("train", "test1"):  # moved elsewhere, they are drawings still
        shutil.copytree(tmp_path / "practice" / kind, tmp_path / "moved" / kind)
    assert get_photos(tmp_path / "moved").are_drawings
    write(tmp_path, {"dogs-vs-cats.zip": kaggle()})  # photos are better
    assert not get_photos(tmp_path).are_drawings

    pictures = [Image.open(photos.train_folder / name) for name in photos.train_files]
    cat, dog = np.reshape([np.asarray(picture).mean((0, 1)) for picture in pictures], (2, 500, 3))
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


ODD = {
    "gray": saved(picture(mode="L"), "GIF"),
    "CMYK": saved(picture(mode="CMYK")),
    "transparent": saved(picture(mode="RGBA"), "PNG"),
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


def test_photos_come_upright_and_without_jagged_edges(tmp_path):
    pixels = np.zeros((600, 400, 3), np.uint8)
    pixels[:300, :, 0] = 250  # red above, black below
    pixels[:, ::2, 1] = 200  # fine green stripes, 100 on average
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    for form in ("PNG", "JPEG"):  # the latter is decoded at a fraction of its size
        turned = Image.fromarray(pixels).rotate(90, expand=True)
        (tmp_path / "1.jpg").write_bytes(saved(turned, form, exif=exif))
        loaded = np.asarray(load_photo(tmp_path / "1.jpg", (40, 60))).astype(int)
        assert loaded[:25, :, 0].min() > 235 and loaded[35:, :, 0].max() < 15
        assert np.abs(loaded[:, :, 1] - 100).max() < 20
