"""Step 0: every layout, every archive and every message, on tiny photos."""

import csv
import errno
import io
import json
import os
import re
import stat
import subprocess
import sys
import time
import types
import zipfile
from pathlib import Path

import archives
import decoding
import get_photos
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from photo_kit import (
    DATA,
    StandIn,
    content,
    google,
    kaggle,
    microsoft,
    photo,
    test_files,
    train_files,
    write,
    zipped,
)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "photos"
READY = train_files() | test_files()
HALVES = {"train.zip": zipped(train_files()), "test1.zip": zipped(test_files())}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Let nothing be fetched or drawn, unless a test says so."""

    def fail(*_):
        raise archives.FetchError("no network")

    monkeypatch.setattr(get_photos, "fetch", fail)
    monkeypatch.setitem(sys.modules, "practice_set", StandIn)


def nested(files, *around):
    """Return the files with folders put around the innermost one: train/train/cat.0.jpg."""
    return {"/".join((*around, name)): data for name, data in files.items()}


def entry(name, mode=0o644, system=3):
    """Return the description of a file in a zip archive, with Unix permissions."""
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = system, mode << 16
    return info


# --- Photos that lie there -----------------------------------------------------------------------

LAYOUTS = {
    "Kaggle's": READY,
    "train/train": nested(train_files(), "train") | nested(test_files(), "test1"),
    "upper-case names": {name.replace("jpg", "JPG"): data for name, data in READY.items()},
    "upper-case kinds": {name.replace("cat.", "Cat."): data for name, data in READY.items()},
    "other endings": {name.replace("jpg", "jpeg"): data for name, data in READY.items()},
    "a Mac's files": READY
    | {
        "train/.DS_Store": b"\0\0\0\1Bud1",
        "train/._cat.0.jpg": b"\0\5\x16\7",
        "__MACOSX/train/._cat.0.jpg": b"\0\5\x16\7",
    },
    "Windows' files": READY | {"train/Thumbs.db": b"\xd0\xcf", "test1/desktop.ini": b"[x]"},
}


@pytest.mark.parametrize("name", ["data", "내 사진", "with space", "ünïcödé-фото", "a'b&c;d"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_photos_that_lie_there_are_used_as_they_are(layout, name, tmp_path, capsys):
    folder = write(tmp_path / name, LAYOUTS[layout])
    before = content(folder)
    photos = get_photos.get_photos(folder)
    assert len(photos.train_files) == 12 and len(photos.test_files) == 4
    assert photos.source == "folder" and not photos.are_drawings
    assert photos.left_out == {} and photos.answers_file is None
    assert all((photos.train_folder / file).is_file() for file in photos.train_files)
    after = content(folder)
    after.pop("checked_photos.json")
    assert after == before
    assert "12 labeled photos (6 cats, 6 dogs)" in capsys.readouterr().out


def test_the_report(tmp_path, capsys, monkeypatch):
    write(tmp_path / "data", READY | {"train/cat.666.jpg": b"", "train/kitten.jpg": photo()})
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    get_photos.get_photos("../data")
    first = capsys.readouterr().out
    report = (
        f"12 labeled photos (6 cats, 6 dogs) in {Path('../data/train')}\n"
        f"4 unlabeled photos in {Path('../data/test1')}\n"
        "Source: put there by hand; left out: 2 files (train/cat.666.jpg: empty file, "
        "train/kitten.jpg: unexpected name)\n"
    )
    assert re.sub(r"\d:\d\d", "0:00", first) == "Checking photos: 17 of 17 in 0:00\n" + report
    get_photos.get_photos("../data")
    assert capsys.readouterr().out == report


def test_files_come_in_numeric_order(tmp_path):
    numbers = [0, 1, 2, 9, 10, 11, 99, 100, 101, 1000]
    files = {f"train/{kind}.{n}.jpg": photo() for n in numbers for kind in ("dog", "cat")}
    write(tmp_path, files | {f"test1/{n}.jpg": photo() for n in reversed(numbers)})
    photos = get_photos.get_photos(tmp_path)
    ordered = [f"{kind}.{n}.jpg" for kind in ("cat", "dog") for n in numbers]
    assert photos.train_files == ordered
    assert photos.test_files == [f"{n}.jpg" for n in numbers]


def test_at_most_ten_files_are_listed(tmp_path, capsys):
    write(tmp_path, READY | {f"train/cat.{n}.jpg": b"" for n in range(500, 514)})
    photos = get_photos.get_photos(tmp_path)
    output = capsys.readouterr().out
    assert "left out: 14 files" in output and output.count("empty file") == 10
    assert "and 4 more)" in output and len(photos.left_out) == 14


def test_strange_things_among_the_photos(tmp_path):
    write(tmp_path, READY | {"train/notes.txt": b"x", "train/cat.77.jpg/inner.jpg": photo()})
    write(tmp_path, {"test1/sampleSubmission.csv": b"id", "train/cat.x.jpg": photo()})
    photos = get_photos.get_photos(tmp_path)
    assert photos.left_out == {
        "test1/sampleSubmission.csv": "unexpected name",
        "train/cat.77.jpg": "not a file",
        "train/cat.x.jpg": "unexpected name",
        "train/notes.txt": "unexpected name",
    }


def test_far_from_even(tmp_path, capsys):
    extra = {f"train/dog.{n}.jpg": photo() for n in range(100, 104)}
    write(tmp_path, READY | extra)
    get_photos.get_photos(tmp_path)
    assert "far from even" in capsys.readouterr().out  # 6 of 16
    (tmp_path / "train/dog.100.jpg").unlink()
    get_photos.get_photos(tmp_path)
    assert "far from even" not in capsys.readouterr().out  # 6 of 15


def test_photos_that_are_gone_are_told(tmp_path, capsys):
    write(tmp_path, HALVES)
    get_photos.get_photos(tmp_path)
    assert "WARNING" not in capsys.readouterr().out
    (tmp_path / "test1" / "2.jpg").unlink()
    get_photos.get_photos(tmp_path)
    assert "test1 holds 3 photos, but 4 had arrived" in capsys.readouterr().out


# --- Archives that lie there ---------------------------------------------------------------------

REDUX = {name.replace("test1", "test"): data for name, data in READY.items()}
ARCHIVES = {
    "Kaggle's": ("kaggle", 12, 4, {"dogs-vs-cats.zip": kaggle()}),
    "Kaggle's, unpacked by a double click": (
        "kaggle",
        12,
        4,
        nested(HALVES, "dogs-vs-cats") | {"dogs-vs-cats/sampleSubmission.csv": b"id,label"},
    ),
    "Kaggle's, with folders in it": ("kaggle", 12, 4, {"dogs-vs-cats.zip": zipped(REDUX)}),
    "Kaggle's halves": ("kaggle", 12, 4, HALVES),
    "halves without a folder": (
        "kaggle",
        12,
        4,
        {
            "train.zip": zipped({name.split("/")[1]: d for name, d in train_files().items()}),
            "test1.zip": zipped({name.split("/")[1]: d for name, d in test_files().items()}),
        },
    ),
    "halves with a Mac's files": (
        "kaggle",
        12,
        4,
        {
            "train.zip": zipped(
                nested(train_files(), "train")
                | {"__MACOSX/train/._cat.0.jpg": b"\0\5", "train/.DS_Store": b"\0"}
            ),
            "test1.zip": zipped(test_files() | {"__MACOSX/test1/1.jpg": b"\0\5"}),
        },
    ),
    "with backslashes": (
        "kaggle",
        12,
        4,
        {"dogs-vs-cats.zip": zipped({n.replace("/", "\\"): d for n, d in READY.items()})},
    ),
    "upper-case endings": (
        "kaggle",
        12,
        4,
        {"dogs-vs-cats.zip": zipped({n.replace("jpg", "JPG"): d for n, d in READY.items()})},
    ),
    "the same photo twice": (
        "kaggle",
        12,
        4,
        {"dogs-vs-cats.zip": zipped(READY | nested(READY, "copy"))},
    ),
    "Microsoft's": ("microsoft", 36, 4, {"kagglecatsanddogs_5340.zip": microsoft()}),
    "Microsoft's, unpacked on the spot": (
        "microsoft",
        36,
        4,
        {f"PetImages/{kind}/{n}.jpg": photo(n) for kind in ("Cat", "Dog") for n in range(20)},
    ),
    "Google's": ("google", 36, 4, {"cats_and_dogs_filtered.zip": google()}),
    "both halves before Kaggle's": ("kaggle", 12, 4, {"dogs-vs-cats.zip": b"cut", **HALVES}),
    "into folders that are empty": (
        "kaggle",
        12,
        4,
        {"train/.DS_Store": b"x", "test1/.gitkeep": b"", "dogs-vs-cats.zip": kaggle()},
    ),
    "among other things": (
        "kaggle",
        12,
        4,
        {"mine.txt": b"mine", ".hidden/train/cat.0.jpg": b"mine", "dogs-vs-cats.zip": kaggle()},
    ),
    "Google's beside a table of mine": (
        "google",
        36,
        4,
        {"cats_and_dogs_filtered.zip": google(), "answers.csv": b"mine"},
    ),
}


@pytest.mark.parametrize("name", ["data", "내 사진 1"])
@pytest.mark.parametrize("case", ARCHIVES)
def test_archives_are_unpacked(case, name, tmp_path):
    source, train, test, files = ARCHIVES[case]
    folder = write(tmp_path / name, files)
    photos = get_photos.get_photos(folder)
    assert (photos.source, len(photos.train_files), len(photos.test_files)) == (source, train, test)
    assert photos.left_out == {}
    assert sum(file.startswith("cat.") for file in photos.train_files) == train // 2
    assert all(re.fullmatch(r"(cat|dog)\.\d+\.jpg", file) for file in photos.train_files)
    assert all(re.fullmatch(r"\d+\.jpg", file) for file in photos.test_files)
    after = content(folder)
    assert all(after[file] == data for file, data in files.items())
    assert not any(re.search(r"get_photos|writing|\.zip/$", file) for file in after)
    again = get_photos.get_photos(folder, source)  # they lie there now, and from this source
    assert again == photos and content(folder) == after


@pytest.mark.parametrize("source, data", [("microsoft", microsoft()), ("google", google())])
def test_a_tenth_becomes_the_test_part(source, data, tmp_path):
    write(tmp_path, {get_photos.SOURCES[source].archive: data})
    photos = get_photos.get_photos(tmp_path)
    assert photos.answers_file == tmp_path / "test1_answers.csv"
    with open(photos.answers_file, encoding="utf-8", newline="") as file:
        answers = list(csv.DictReader(file))
    assert (
        [row["filename"] for row in answers]
        == photos.test_files
        == [f"{n}.jpg" for n in range(1, 5)]
    )
    assert sorted(row["label"] for row in answers) == ["cat", "cat", "dog", "dog"]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        originals = {
            archive.read(name): name.lower() for name in archive.namelist() if name.endswith("jpg")
        }
    for row in answers:
        original = originals.pop((photos.test_folder / row["filename"]).read_bytes())
        assert f"/{row['label']}" in original
    for name in photos.train_files:
        original = originals.pop((photos.train_folder / name).read_bytes())
        assert name.split(".")[1] in original and f"/{name[:3]}" in original
    assert not originals


def test_the_tenth_does_not_depend_on_the_order_in_the_archive(tmp_path):
    with zipfile.ZipFile(io.BytesIO(microsoft())) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    for place, order in enumerate((list(files), list(files)[::-1])):
        data = zipped({name: files[name] for name in order})
        write(tmp_path / str(place), {"kagglecatsanddogs_5340.zip": data})
        get_photos.get_photos(tmp_path / str(place))
    first, second = content(tmp_path / "0"), content(tmp_path / "1")
    for found in (first, second):
        found.pop("kagglecatsanddogs_5340.zip")
    assert first == second


def test_the_missing_half_is_unpacked_beside_the_readers_own(tmp_path):
    mine = train_files(3)
    write(tmp_path, mine | {"dogs-vs-cats.zip": kaggle()})
    photos = get_photos.get_photos(tmp_path)
    assert photos.source == "folder" and len(photos.train_files) == 6
    assert len(photos.test_files) == 4
    assert all((tmp_path / name).read_bytes() == data for name, data in mine.items())


def test_the_readers_own_answers_stay_beside_those_that_arrive(tmp_path):
    write(tmp_path, {"test1_answers.csv": b"mine", "cats_and_dogs_filtered.zip": google()})
    photos = get_photos.get_photos(tmp_path)
    assert (tmp_path / "test1_answers.csv").read_bytes() == b"mine"
    assert photos.answers_file.name == "test1_answers_2.csv"


# --- What ends in one clear message --------------------------------------------------------------

UNSAFE = "was not unpacked, since it is not safe: "
MESSAGES = {  # FOLDER stands for the folder's path
    "no test1": (train_files(), r"FOLDER/train holds photos, but FOLDER/test1 does not. Put Kag"),
    "no train": (test_files(), r"FOLDER/test1 holds photos, but FOLDER/train does not. Put Kagg"),
    "an empty test1": (train_files() | {"test1/.keep": b""}, "FOLDER/test1 does not"),
    "no dogs": (
        {n: d for n, d in READY.items() if "dog" not in n},
        r"FOLDER holds too little that can be decoded \(cats: 6, dogs: 0, test photos: 4\). The no",
    ),
    "no cats that are whole": (
        {n: b"" if "cat" in n else d for n, d in READY.items()},
        r"cats: 0, dogs: 6, test photos: 4; left out: 6 files \(train/cat.0.jpg: empty file, ",
    ),
    "no test photo that is whole": (
        {n: b"x" if "test1" in n else d for n, d in READY.items()},
        r"dogs: 6, test photos: 0; left out.*test1/1.jpg: not a picture",
    ),
    "other names": (
        {"train/felix.jpg": photo(), "train/rex.jpg": photo()},
        r"FOLDER/train holds 2 files or folders, but no photo with a name like cat.0.jpg or dog",
    ),
    "sorted into folders": (
        {"train/cats/1.jpg": photo(), "train/dogs/1.jpg": photo(), **test_files()},
        r"FOLDER/train holds 2 files or folders, but no photo with a name like cat.0.jpg",
    ),
    "train is a file": ({"train": b"x"}, r"FOLDER/train is a file, not a folder. Move it"),
    "only train.zip": (
        {"train.zip": HALVES["train.zip"]},
        r"FOLDER/train.zip lies there, but test1.zip does not. Put both into FOLDER",
    ),
    "only test1.zip": ({"test1.zip": HALVES["test1.zip"]}, r"test1.zip lies there, but train.zip"),
    "an archive cut short": (
        {"dogs-vs-cats.zip": kaggle()[:-100]},
        r"FOLDER/dogs-vs-cats.zip is cut short or damaged \([0-9,]+ bytes; .*\). It was left as",
    ),
    "a half cut short": (
        HALVES | {"test1.zip": HALVES["test1.zip"][:1000]},
        r"FOLDER/test1.zip is cut short or damaged",
    ),
    "an archive in the archive cut short": (
        {"dogs-vs-cats.zip": zipped({**HALVES, "train.zip": HALVES["train.zip"][:999]})},
        r"train.zip is cut short or damaged \(999 bytes",
    ),
    "an empty archive": ({"dogs-vs-cats.zip": b""}, r"is cut short or damaged \(0 bytes"),
    "a log-in page": (
        {"dogs-vs-cats.zip": b"<!DOCTYPE html><title>Kaggle: Log in</title>"},
        r"FOLDER/dogs-vs-cats.zip is a web page, not an archive",
    ),
    "an archive of something else": (
        {"dogs-vs-cats.zip": zipped({"birds/1.txt": b"x"})},
        r"holds too few photos \(0 for train, 0 for test1\)",
    ),
    "Kaggle's without its test part": (
        {"dogs-vs-cats.zip": zipped({"train.zip": HALVES["train.zip"]})},
        r"holds too few photos \(12 for train, 0 for test1\)",
    ),
    "two photos of one name": (
        {"dogs-vs-cats.zip": zipped(READY | {"other/cat.0.jpg": photo(77)})},
        r"other/cat.0.jpg is twice in the archive, with different content",
    ),
    "out of the folder": (
        {"dogs-vs-cats.zip": zipped(READY | {"../train/cat.99.jpg": photo()})},
        UNSAFE + r"../train/cat.99.jpg in it points outside the folder",
    ),
    "out of the folder, with backslashes": (
        {"dogs-vs-cats.zip": zipped(READY | {"..\\train\\cat.99.jpg": photo()})},
        UNSAFE + "../train/cat.99.jpg in it points outside",
    ),
    "an absolute path": (
        {"dogs-vs-cats.zip": zipped(READY | {"/etc/cat.99.jpg": photo()})},
        UNSAFE + "/etc/cat.99.jpg in it points outside",
    ),
    "another drive": (
        {"dogs-vs-cats.zip": zipped(READY | {"C:/train/cat.99.jpg": photo()})},
        UNSAFE + "C:/train/cat.99.jpg in it points outside",
    ),
    "a link": (
        {"dogs-vs-cats.zip": zipped(READY | {entry("train/cat.99.jpg", stat.S_IFLNK): b"/etc"})},
        UNSAFE + "train/cat.99.jpg in it is a link",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_what_is_wrong_is_told_and_nothing_is_touched(case, tmp_path):
    files, message = MESSAGES[case]
    folder = write(tmp_path / "data", files)
    before = content(tmp_path)
    with pytest.raises(archives.PhotosError) as error:
        get_photos.get_photos(folder)
    told = str(error.value).replace(str(folder), "FOLDER").replace("\\", "/")
    assert re.search(message, told)
    assert told.endswith(".") and "\n" not in told
    after = content(tmp_path)
    after.pop("data/checked_photos.json", None)
    assert after == before


def test_an_encrypted_archive(tmp_path):
    data = bytearray(zipped(READY))
    for start in [match.start() for match in re.finditer(b"PK\x01\x02", bytes(data))]:
        data[start + 8] |= 1
    write(tmp_path, {"dogs-vs-cats.zip": bytes(data)})
    with pytest.raises(archives.PhotosError, match="is encrypted"):
        get_photos.get_photos(tmp_path)


def test_a_zip_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST_FILE", 2**20)
    with zipfile.ZipFile(tmp_path / "dogs-vs-cats.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(5):
            archive.writestr(f"train/cat.{number}.jpg", bytes(2**20))
    with pytest.raises(archives.PhotosError, match="it unpacks to 5,242,880 bytes"):
        get_photos.get_photos(tmp_path)
    assert os.listdir(tmp_path) == ["dogs-vs-cats.zip"]


def test_a_huge_file(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST_FILE", 1000)
    write(tmp_path, {"dogs-vs-cats.zip": zipped({"train/cat.0.jpg": bytes(1001)})})
    with pytest.raises(archives.PhotosError, match=r"cat\.0\.jpg in it unpacks to 1,001 bytes"):
        get_photos.get_photos(tmp_path)


def test_no_room_to_unpack(tmp_path, monkeypatch):
    write(tmp_path, HALVES)
    free = types.SimpleNamespace(free=100)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: free)
    with pytest.raises(archives.PhotosError, match=r"train\.zip needs about .* MB .* Make room"):
        get_photos.get_photos(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["test1.zip", "train.zip"]


def test_a_full_disk(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    write(tmp_path, HALVES)
    monkeypatch.setattr(archives.shutil, "copyfileobj", full)
    with pytest.raises(archives.PhotosError, match=r"No space left on device.*disk is not full"):
        get_photos.get_photos(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["test1.zip", "train.zip"]


def test_another_source_never_replaces_photos(tmp_path):
    write(tmp_path, READY)
    get_photos.get_photos(tmp_path)
    before = content(tmp_path)
    for source in get_photos.SOURCES:
        with pytest.raises(archives.PhotosError, match=r"already holds photos \(put there by hand"):
            get_photos.get_photos(tmp_path, source)
    assert content(tmp_path) == before
    with pytest.raises(archives.PhotosError, match="no source 'bing'; choose auto, kaggle, micro"):
        get_photos.get_photos(tmp_path, "bing")


def test_other_archives_are_mentioned(tmp_path, capsys):
    write(tmp_path, {"archive (3).zip": zipped(READY)})
    photos = get_photos.get_photos(tmp_path)
    assert photos.are_drawings
    assert "none of the known archives" in capsys.readouterr().out


def test_a_note_about_other_photos_does_not_count(tmp_path):
    """Drawings were there once; then the reader put photos in their place."""
    get_photos.get_photos(tmp_path, "practice")
    assert get_photos.get_photos(tmp_path).are_drawings
    write(tmp_path, train_files(21) | test_files(5))
    photos = get_photos.get_photos(tmp_path)
    assert photos.source == "folder" and photos.answers_file is None


def test_answers_without_a_note_count_when_they_cover_the_test_photos(tmp_path):
    answers = "filename,label\n" + "".join(f"{n}.jpg,cat\n" for n in range(1, 5))
    write(tmp_path, READY | {"test1_answers.csv": answers.encode()})
    assert get_photos.get_photos(tmp_path).answers_file == tmp_path / "test1_answers.csv"
    write(tmp_path, {"test1/5.jpg": photo()})
    assert get_photos.get_photos(tmp_path).answers_file is None


# --- Kaggle's client -----------------------------------------------------------------------------


def test_kaggle_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(archives.PhotosError) as error:
        get_photos.get_photos(tmp_path, "kaggle")
    for thing in ("not installed", "pip install kagglehub", "a token", "the rules accepted"):
        assert thing in str(error.value)


def test_kaggle_that_refuses(tmp_path, monkeypatch):
    def refuse(_):
        raise RuntimeError("403 Client Error.\nYou must accept the rules.")

    module = types.SimpleNamespace(competition_download=refuse)
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    with pytest.raises(archives.PhotosError, match=r"\(403 Client Error\.\)\. Three things"):
        get_photos.get_photos(tmp_path, "kaggle")


def test_kaggle_that_gives(tmp_path, monkeypatch):
    cache = write(tmp_path / "cache", HALVES | {"sampleSubmission.csv": b"id,label"})
    before = content(cache)
    module = types.SimpleNamespace(competition_download=lambda _: str(cache))
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    photos = get_photos.get_photos(tmp_path / "data", "kaggle")
    assert photos.source == "kaggle" and len(photos.train_files) == 12
    assert content(cache) == before


# --- Verdicts ------------------------------------------------------------------------------------


def test_only_what_changed_is_checked_again(tmp_path, monkeypatch):
    write(tmp_path, READY)
    checked = []
    examine = get_photos.examine
    monkeypatch.setattr(
        get_photos, "examine", lambda path: checked.append(path.name) or examine(path)
    )
    get_photos.get_photos(tmp_path)
    assert len(checked) == 16
    checked.clear()
    get_photos.get_photos(tmp_path)
    assert checked == []
    write(tmp_path, {"train/cat.3.jpg": photo(3) + b"longer", "train/dog.50.jpg": b""})
    os.utime(tmp_path / "test1/2.jpg", (1, 1))
    photos = get_photos.get_photos(tmp_path)
    assert sorted(checked) == ["2.jpg", "cat.3.jpg", "dog.50.jpg"]
    assert photos.left_out == {"train/dog.50.jpg": "empty file"}


SPOILED = ["", "{", "[]", "null", '{"train/cat.0.jpg": 3}', '{"train/cat.0.jpg": [1, 2]}', "\0"]


@pytest.mark.parametrize("text", SPOILED)
def test_spoiled_verdicts_and_notes_do_no_harm(text, tmp_path):
    notes = {"checked_photos.json": text.encode(), "photos_source.json": text.encode()}
    write(tmp_path, READY | notes)
    photos = get_photos.get_photos(tmp_path)
    assert len(photos.train_files) == 12 and photos.source == "folder"
    kept = json.loads((tmp_path / "checked_photos.json").read_text(encoding="utf-8"))
    assert len(kept["files"]) == 16


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied", "checked_photos.json")

    write(tmp_path, READY)
    monkeypatch.setattr(get_photos, "write_json", refuse)
    photos = get_photos.get_photos(tmp_path)
    assert len(photos.train_files) == 12
    assert "cannot be written to, so the next run has to check again" in capsys.readouterr().out


def test_listing_37500_files_with_verdicts_takes_two_seconds(tmp_path):
    for part, names in {
        "train": [f"{kind}.{n}.jpg" for kind in ("cat", "dog") for n in range(12500)],
        "test1": [f"{n}.jpg" for n in range(1, 12501)],
    }.items():
        folder = write(tmp_path, {f"{part}/original.jpg": photo()}) / part
        for name in names:
            os.link(folder / "original.jpg", folder / name)
        (folder / "original.jpg").unlink()
    status = os.stat(tmp_path / "test1/1.jpg"), os.stat(tmp_path / "train/cat.0.jpg")
    verdicts = {
        f"{part}/{name}": [state.st_size, state.st_mtime_ns, state.st_ctime_ns, "5-1234", ""]
        for part, state in zip(("test1", "train"), status, strict=True)
        for name in os.listdir(tmp_path / part)
    }
    (tmp_path / "checked_photos.json").write_text(
        json.dumps({"check": decoding.CHECK, "files": verdicts}), encoding="utf-8"
    )
    began = time.process_time()  # of this process only, as others may be busy
    photos = get_photos.get_photos(tmp_path)
    assert time.process_time() - began < 2
    assert len(photos.train_files) == 25000 and len(photos.test_files) == 12500


# --- Names and layouts, at random ----------------------------------------------------------------

NUMBERS = st.integers(0, 10**9)
FOLDERS = st.lists(st.text("abcü사 .-_(1)", min_size=1, max_size=6), max_size=3)
SLOW = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@given(
    FOLDERS.filter(lambda f: not any(part.startswith(".") or part == ".." for part in f)),
    st.sampled_from(["cat", "dog"]),
    NUMBERS,
    st.sampled_from(["jpg", "JPG", "jpeg", "png"]),
)
def test_labeled_photos_find_their_place_under_any_folder(folders, kind, number, ending):
    names = [
        "/".join((*folders, f"{kind}.{number}.{ending}")),
        "/".join((*folders, kind.title(), f"{number}.{ending}")),
        "/".join((*folders, f"{kind}s", f"{number}.{ending}")),
        "/".join((*folders, f"{kind}s", f"{kind}.{number}.{ending}")),
    ]
    expected = f"train/{kind}.{number}.{ending.lower()}"
    assert {str(archives.place(f"archive/{name}")) for name in names} == {expected}
    assert archives.place(f"archive/__MACOSX/{names[0]}") is None
    assert archives.place("/".join(("archive", *folders, f"._{kind}.{number}.{ending}"))) is None


@given(st.text(max_size=40))
def test_no_name_leads_out_of_the_two_folders(name):
    target = archives.place(f"archive/{name}")
    if target is not None:
        assert target.parts[0] in ("train", "test1") and len(target.parts) == 2
        pattern = get_photos.PARTS[target.parts[0]]
        assert pattern.fullmatch(target.name)
        assert set(target.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._")


@given(st.lists(NUMBERS, min_size=2, max_size=30, unique=True), st.randoms())
def test_numeric_order_is_that_of_the_numbers(numbers, shuffle):
    names = [f"{kind}.{n}.jpg" for kind in ("cat", "dog") for n in sorted(numbers)]
    mixed = names.copy()
    shuffle.shuffle(mixed)
    assert sorted(mixed, key=get_photos.numeric_order) == names


@SLOW
@given(data=st.data())
def test_any_mix_of_files_is_accounted_for(data, tmp_path_factory):
    """Each file but junk is either used or left out, and no file is changed."""
    odd = st.text("catdog.0123jpgJPG 사_", min_size=1, max_size=12).filter(
        lambda name: not name.startswith((".", " ")) and not name.endswith((".", " "))
    )
    contents = st.sampled_from([photo(), photo(1), b"", b"text", photo()[:300]])
    train = data.draw(st.dictionaries(odd, contents, max_size=8))
    test = data.draw(st.dictionaries(odd, contents, max_size=8))
    files = READY | nested(train, "train") | nested(test, "test1")
    if len({name.casefold() for name in files}) < len(files):
        return  # a folder on Windows or a Mac could not hold them
    folder = write(tmp_path_factory.mktemp("mix"), files)
    photos = get_photos.get_photos(folder)
    used = {f"train/{name}" for name in photos.train_files}
    used |= {f"test1/{name}" for name in photos.test_files}
    junk = {name for name in files if name.split("/")[1] in ("train", "test1")}
    assert used | photos.left_out.keys() | junk >= set(files)
    assert not used & photos.left_out.keys() and used <= set(files)
    assert all((folder / name).read_bytes() == data for name, data in files.items())
    assert get_photos.load_photos(photos.train_folder, photos.train_files, (4, 4)).shape[0]


@SLOW
@given(
    place=st.integers(0, 10**6),
    value=st.integers(1, 255),
    way=st.sampled_from(["flip", "cut", "zero"]),
)
def test_a_damaged_archive_gives_all_photos_or_a_message(place, value, way, tmp_path_factory):
    original = zipped({name: photo() for name in READY})
    place %= len(original)
    damaged = {
        "flip": original[:place] + bytes([original[place] ^ value]) + original[place + 1 :],
        "cut": original[:place],
        "zero": original[:place] + bytes(value) + original[place + value :],
    }[way]
    folder = write(tmp_path_factory.mktemp("damaged"), {"dogs-vs-cats.zip": damaged})
    try:
        photos = get_photos.get_photos(folder)
    except archives.PhotosError as problem:
        assert "Reading or writing" not in str(problem)
        assert not any(name.startswith(".get") for name in os.listdir(folder))
    else:
        for name in photos.train_files:
            assert (photos.train_folder / name).read_bytes() == photo()
    assert (folder / "dogs-vs-cats.zip").read_bytes() == damaged


# --- From a shell, and in a notebook -------------------------------------------------------------


def shell(*arguments, **options):
    """Run the script as a reader would."""
    command = [sys.executable, "get_photos.py", *map(str, arguments)]
    environment = {**os.environ, "PYTHONUTF8": "1"}
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", cwd=DATA, env=environment, **options
    )


def test_help_names_each_choice():
    done = shell("--help")
    assert done.returncode == 0 and done.stderr == ""
    assert "{auto,kaggle,microsoft,google,practice}" in done.stdout
    assert not done.stdout.count(str(DATA))


def test_from_a_shell(tmp_path):
    write(tmp_path, {"train.zip": HALVES["train.zip"]})
    done = shell("--folder", tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"{tmp_path / 'train.zip'} lies there, but test1.zip does not.")
    write(tmp_path, HALVES)
    done = shell("auto", "--folder", tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert "\r" not in done.stdout and len(done.stdout.splitlines()) == 6
    assert shell("bing").returncode == 2


def test_in_a_notebook_only_the_message_is_shown():
    error = archives.PhotosError("What was found.")
    assert error._render_traceback_() == ["What was found."]


def test_the_progress_line_in_a_terminal_and_in_a_notebook(monkeypatch):
    class OutStream(io.StringIO):  # the name of Jupyter's output
        pass

    stream = OutStream()
    monkeypatch.setattr(sys, "stdout", stream)
    clock = iter(range(100))
    monkeypatch.setattr(archives, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    with archives.Progress("Fetching x.zip", 40_000_000, scale=1e6, unit=" MB") as progress:
        for _ in range(4):
            progress.add(10_000_000)
    lines = stream.getvalue().split("\r")
    assert lines[0] == "" and lines[1].startswith("Fetching x.zip: 10.0 of 40.0 MB [=====...")
    assert "left" in lines[1] and "\n" not in "".join(lines[:-1])
    assert lines[-1].rstrip(" \n").endswith("40.0 of 40.0 MB in 0:09")
    assert len(lines[-1]) >= len(lines[-2])  # covers what was there


# --- The photos themselves -----------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"THE REAL PHOTOS ARE NOT HERE: no {SHARED}")
def test_real_photos_of_original_size(tmp_path):
    with zipfile.ZipFile(SHARED / "original-size-sample.zip") as archive:
        write(
            tmp_path, {"dogs-vs-cats.zip": zipped({n: archive.read(n) for n in archive.namelist()})}
        )
    photos = get_photos.get_photos(tmp_path)
    assert (len(photos.train_files), len(photos.test_files)) == (300, 100)
    assert photos.source == "kaggle" and photos.left_out == {}
    pixels = get_photos.load_photos(photos.train_folder, photos.train_files)
    assert pixels.shape == (300, 128, 128, 3) and pixels.dtype == np.uint8
    assert 90 < pixels.mean() < 150 and (pixels.std(axis=(1, 2, 3)) > 10).all()


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"THE REAL PHOTOS ARE NOT HERE: no {SHARED}")
def test_all_real_photos(tmp_path):
    for name in ("train.zip", "test1.zip"):
        os.symlink(SHARED / name, tmp_path / name)
    photos = get_photos.get_photos(tmp_path)
    assert (len(photos.train_files), len(photos.test_files)) == (25000, 12500)
    assert photos.left_out == {}
    began = time.process_time()
    pixels = get_photos.load_photos(photos.train_folder, photos.train_files)
    assert time.process_time() - began < 40  # 20 seconds on two processors
    assert pixels.nbytes < 1.3e9
