"""Step 0 takes no file for another: what appears late, what was moved, what cannot be read."""

import errno
import io
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import archives
import decoding
import files
import get_photos
import numpy as np
import pandas as pd
import pytest
import requests
from photo_kit import (
    StandIn,
    content,
    google,
    kaggle,
    microsoft,
    photo,
    picture,
    saved,
    test_files,
    train_files,
    write,
    zipped,
)
from PIL import Image, ImageFile

READY = train_files() | test_files()
HALVES = {"train.zip": zipped(train_files()), "test1.zip": zipped(test_files())}
MINE = {name: photo(1050 + n) for n, name in enumerate(READY)}  # the reader's own, same names
TESTS = os.path.dirname(__file__)
posix = pytest.mark.skipif(os.name == "nt", reason="made with what only Unix has")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Let nothing be fetched, and draw in no time."""

    def fail(*_):
        raise archives.FetchError("no network")

    monkeypatch.setattr(get_photos, "fetch", fail)
    monkeypatch.setitem(sys.modules, "practice_set", StandIn)


def refused(folder, *arguments):
    """Run step 0, which must refuse in a sentence or two, and return the message."""
    with pytest.raises(archives.PhotosError) as error:
        get_photos.get_photos(folder, *arguments)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)
    return str(error.value)


def move(here, there, *names):
    """Move what there is of these names."""
    there.mkdir(exist_ok=True)
    for name in names:
        if (here / name).exists():
            shutil.move(here / name, there / name)


def renamed(files, *pairs):
    """Return the files with parts of their names replaced."""
    for old, new in pairs:
        files = {name.replace(old, new): data for name, data in files.items()}
    return files


# --- Nothing that exists is replaced -------------------------------------------------------------


@pytest.mark.parametrize("mine", [MINE, {n: d for n, d in MINE.items() if "train" in n}])
@pytest.mark.parametrize("late", ["unpack", "record", "read_sets", "write_json", "move_new"])
def test_photos_that_appear_late_are_not_overwritten(late, mine, tmp_path, monkeypatch):
    folder = write(tmp_path / "data", {"dogs-vs-cats.zip": kaggle()})
    original = getattr(get_photos, late)

    def beside_a_reader(*arguments):
        done = original(*arguments)
        write(folder, mine)
        return done

    monkeypatch.setattr(get_photos, late, beside_a_reader)
    message = refused(folder)
    monkeypatch.undo()
    assert str(folder / "get_photos_finished") in message
    assert str(folder / "train") in message or str(folder / "test1") in message
    if late != "move_new":  # which had moved the test photos, so that these were the ones to go
        assert {name: (folder / name).read_bytes() for name in mine} == mine
        assert len(list(folder.glob("get_photos_finished/**/*.jpg"))) == 16
        assert refused(folder) == message  # until the reader has chosen
        move(folder, tmp_path / "elsewhere", "train", "test1")
        photos = get_photos.get_photos(folder)
        assert photos.source == "kaggle" and len(photos.train_files) == 12


def test_what_appears_while_a_file_is_moved_is_not_overwritten(tmp_path):
    write(tmp_path, {"a.part": b"fetched", "a": b"mine"})
    with pytest.raises(FileExistsError):
        files.move_new(tmp_path / "a.part", tmp_path / "a")
    assert content(tmp_path) == {"a.part": b"fetched", "a": b"mine"}


@posix
def test_a_move_that_was_stopped_between_its_two_steps_goes_on(tmp_path):
    write(tmp_path, {"a.part": b"fetched"})
    os.link(tmp_path / "a.part", tmp_path / "a")
    files.move_new(tmp_path / "a.part", tmp_path / "a")
    assert content(tmp_path) == {"a": b"fetched"}


def test_the_same_answers_need_no_second_file(tmp_path):
    folder = tmp_path / "data"
    for _ in range(2):
        photos = get_photos.get_photos(folder, "practice")
        assert photos.answers_file == folder / "test1_answers.csv"
        move(folder, tmp_path / "away", "train", "test1")
        shutil.rmtree(tmp_path / "away")
    assert [path.name for path in folder.glob("*.csv")] == ["test1_answers.csv"]


@posix
def test_without_hard_links_nothing_is_overwritten_either(tmp_path, monkeypatch):
    def none(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    test_what_appears_while_a_file_is_moved_is_not_overwritten(tmp_path)
    write(tmp_path / "b", {"train/.keep": b"", "test1/.keep": b""} | HALVES)
    assert get_photos.get_photos(tmp_path / "b").source == "kaggle"


@posix
@pytest.mark.parametrize("name", ["", "train", "test1", "Test", "train.zip", "dogs-vs-cats.zip"])
def test_a_dangling_link_is_named_before_anything_is_fetched(name, tmp_path, monkeypatch):
    if name:
        (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).symlink_to(tmp_path / "disk")
    monkeypatch.setattr(get_photos, "fetch", None)
    message = refused(tmp_path / "data")
    assert f"{tmp_path / 'data' / name} is a link to a place that is not there" in message


@posix
def test_photos_on_a_disk_that_comes_back_are_used_as_they_are(tmp_path):
    disk, folder = tmp_path / "disk", tmp_path / "data"
    folder.mkdir()
    for part in ("train", "test1"):
        (folder / part).symlink_to(disk / part)
    refused(folder)
    write(disk, MINE)
    assert get_photos.get_photos(folder).source == "folder"
    assert content(disk).items() >= MINE.items()


def test_what_was_unpacked_is_counted_against_the_archive(tmp_path, monkeypatch):
    write(tmp_path, HALVES)
    copy = archives.copy_entry

    def beside_a_scanner(entry, target):
        copy(entry, target)
        if target.name == "cat.3.jpg":
            target.unlink()

    monkeypatch.setattr(archives, "copy_entry", beside_a_scanner)
    assert "1 of 16 photos, cat.3.jpg among them, were gone" in refused(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["test1.zip", "train.zip"]


AGAIN = {"x/train.zip": HALVES["train.zip"]}
TWICE = {
    "in an archive": {"dogs-vs-cats.zip": zipped(HALVES | AGAIN)},
    "in a folder": {f"dogs-vs-cats/{name}": data for name, data in (HALVES | AGAIN).items()},
    "fetched twice": HALVES | {"train (1).zip": HALVES["train.zip"]},
}


@pytest.mark.parametrize("case", TWICE)
def test_an_archive_that_is_there_twice_is_used_once(case, tmp_path):
    photos = get_photos.get_photos(write(tmp_path, TWICE[case]))
    assert (len(photos.train_files), len(photos.test_files)) == (12, 4)


# --- A folder that cannot be written to, such as those that Kaggle lends -------------------------


@pytest.fixture
def step_0(tmp_path):
    """Return a function that runs step 0 where some folders are read-only; skip if there is no way.

    The script runs in a copy of the project, `tmp_path / "data"`, as archives are unpacked there.
    For root, who may write everywhere, the folders are mounted read-only.
    """
    for script in Path(get_photos.__file__).parent.glob("*.py"):
        write(tmp_path / "data", {script.name: script.read_bytes()})

    def run(folder, *read_only):
        command = [sys.executable, tmp_path / "data" / "get_photos.py", "--folder", folder]
        quoted = [shlex.quote(str(path)) for path in read_only]
        mounts = [f"mount --bind {p} {p} && mount -o remount,ro,bind {p} {p}" for p in quoted]
        as_root = ["unshare", "--mount", "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh"]
        for path in read_only:
            path.chmod(0o555)
        try:
            if os.access(folder, os.W_OK):
                command = as_root + command
                if not shutil.which("unshare") or subprocess.run([*as_root, "true"]).returncode:
                    pytest.skip("NOT TESTED IN A READ-ONLY FOLDER: root cannot mount one here")
            return subprocess.run(command, capture_output=True, text=True)
        finally:
            for path in read_only:
                path.chmod(0o755)

    return run


LENT = {
    "Kaggle's halves": ("kaggle", HALVES | {"sampleSubmission.csv": b"id,label"}),
    "Kaggle's archive": ("kaggle", {"dogs-vs-cats.zip": kaggle()}),
    "Google's": ("google", {"cats_and_dogs_filtered.zip": google(7)}),
}


@posix
@pytest.mark.parametrize("case", LENT)
def test_archives_in_a_read_only_folder_are_unpacked_beside_the_script(case, step_0, tmp_path):
    source, lying = LENT[case]
    lent, data = write(tmp_path / "lent", lying), tmp_path / "data"
    done = step_0(lent, lent)
    assert done.returncode == 0, done.stderr
    assert f"12 labeled photos (6 cats, 6 dogs) in {data / 'train'}\n" in done.stdout
    assert f"Source: {get_photos.SOURCES[source].title}" in done.stdout
    assert content(lent) == lying
    found = content(data)

    again = step_0(lent, lent)
    assert "Unpacking" not in again.stdout and "Checking" not in again.stdout
    assert again.stdout == done.stdout[done.stdout.index("12 labeled") :]
    assert content(data) == found


@posix
def test_photos_in_a_read_only_folder_are_used_as_they_lie(step_0, tmp_path):
    lent, data = write(tmp_path / "lent", READY), tmp_path / "data"
    before = content(data)
    done = step_0(lent, lent)
    assert done.returncode == 0 and f"in {lent / 'train'}\n" in done.stdout
    assert f"{lent} cannot be written to, so the next run has to check again.\n" in done.stdout
    assert content(lent) == READY | {"train": "folder", "test1": "folder"}
    assert content(data) == before


BESIDE = {  # what lies in the read-only folder, and beside the script; and a piece of what is said
    "other photos": (HALVES, MINE, "data already holds photos (put there by hand), and nothing w"),
    "half of other photos": (
        HALVES,
        {name: data for name, data in MINE.items() if "train" in name},
        "data/train holds photos, but PROJECT/data/test1 does not. Put Kaggle's test1.zip or",
    ),
    "half of an archive": ({"train.zip": HALVES["train.zip"]}, {}, "but test1.zip does not. Put"),
    "nothing that is known": (
        {"photos.tar": b"x"},
        {},
        "lent cannot be written to, and has neither train and test1 nor a fitting archive in it",
    ),
}


@posix
@pytest.mark.parametrize("case", BESIDE)
def test_nothing_is_taken_for_what_a_read_only_folder_holds(case, step_0, tmp_path):
    lying, beside, told = BESIDE[case]
    lent, data = write(tmp_path / "lent", lying), write(tmp_path / "data", beside)
    before = content(data)
    done = step_0(lent, lent)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert told in done.stderr.replace(str(tmp_path), "PROJECT")
    after = content(data)
    after.pop("checked_photos.json", None)
    assert after == before and content(lent) == lying


@posix
def test_where_nothing_can_be_written_it_is_said(step_0, tmp_path):
    lent, data = write(tmp_path / "lent", HALVES), tmp_path / "data"
    done = step_0(lent, lent, data)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"Reading or writing {data}")
    assert done.stderr.endswith(". Check that it may be read and written, then run again.\n")


# --- Two at once, and killed at any moment -------------------------------------------------------

RUN = f"""
import sys
sys.path.insert(0, {TESTS!r})
import photo_kit, get_photos
sys.modules["practice_set"] = photo_kit.StandIn
get_photos.get_photos(sys.argv[1], sys.argv[2])
"""


def start(folder, source="auto"):
    """Start step 0 in a process of its own."""
    command = [sys.executable, "-c", RUN, str(folder), source]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.once
@pytest.mark.parametrize("times", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_of_two_runs_at_once_neither_leaves_an_incomplete_set(times, tmp_path):
    for number in range(times):
        source, lying = [("auto", {"dogs-vs-cats.zip": kaggle(60, 40)}), ("practice", {})][
            number % 2
        ]
        folder = write(tmp_path / str(number), lying)
        pair = [start(folder, source) for _ in range(2)]
        told = [process.communicate(timeout=120) for process in pair]
        assert [process.returncode for process in pair] == [0, 0], told
        found = "120 labeled photos (60 cats" if lying else "40 labeled drawings (20 cats"
        assert all(found in output and "had arrived" not in output for output, _ in told)
        assert not any("get_photos" in name for name in os.listdir(folder))


def test_the_one_that_waits_says_so_and_a_killed_one_holds_no_lock(tmp_path):
    code = (
        f"import sys, time; sys.path.insert(0, {TESTS!r}); import photo_kit, files, pathlib\n"
        f"with files.one_run_at_a_time(pathlib.Path({str(tmp_path)!r})):\n"
        "    print('has it', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "has it\n"
    waiting = start(write(tmp_path, HALVES))
    assert "Another run is at work" in waiting.stdout.readline()
    holder.kill()
    holder.communicate()
    output, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0 and "12 labeled photos" in output


@pytest.mark.once
@pytest.mark.parametrize("times", [10, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_at_random_times_and_run_again_it_is_as_if_undisturbed(times, tmp_path):
    scenes = [
        ("auto", {"dogs-vs-cats.zip": kaggle(40, 30)}),
        ("auto", {"kagglecatsanddogs_5340.zip": microsoft(40)}),
        ("practice", {"train/.keep": b"", "test1/.keep": b""}),
    ]
    expected, draw, duration = {}, random.Random(times), 0
    for number in range(-len(scenes), times):
        scene = number % len(scenes)
        source, lying = scenes[scene]
        folder = write(tmp_path / f"folder {number}", lying)
        began, process = time.monotonic(), start(folder, source)
        if number < 0:  # undisturbed
            assert process.communicate() and process.returncode == 0
            expected[scene], duration = content(folder), time.monotonic() - began
        else:
            time.sleep(draw.uniform(0.3, 1) * duration)
            process.kill()
            process.communicate()
            get_photos.get_photos(folder, source)
            assert content(folder) == expected[scene]


# --- Statements are about these very files -------------------------------------------------------


def answers_of(photos):
    """Return {file name: label} from the answers of a Photos, as the notebook reads them."""
    return photos.answers_file and dict(
        pd.read_csv(photos.answers_file)[["filename", "label"]].to_numpy().tolist()
    )


def test_own_photos_in_the_place_of_others_have_neither_their_source_nor_answers(tmp_path, capsys):
    write(tmp_path, {"cats_and_dogs_filtered.zip": google()})
    photos = get_photos.get_photos(tmp_path)
    assert photos.source == "google" and len(answers_of(photos)) == 4
    for path in [*(tmp_path / "train").iterdir(), *(tmp_path / "test1").iterdir()]:
        path.write_bytes(photo(7000))
    photos = get_photos.get_photos(tmp_path)
    assert photos.source == "folder" and photos.answers_file is None
    assert "Source: put there by hand" in capsys.readouterr().out


def test_exchanged_photos_have_no_answers(tmp_path):
    """Not even if size and time are the same."""
    same = [photo(n).ljust(5000, b"\0") for n in range(20)]
    named = {f"PetImages/{k}/{n}.jpg": same.pop() for k in ("Cat", "Dog") for n in range(10)}
    get_photos.get_photos(write(tmp_path, {"kagglecatsanddogs_5340.zip": zipped(named)}))
    first, second = tmp_path / "test1/1.jpg", tmp_path / "test1/2.jpg"
    os.utime(first, (1, 1))
    os.utime(second, (1, 1))
    assert get_photos.get_photos(tmp_path).answers_file
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)
    assert get_photos.get_photos(tmp_path).answers_file is None


def test_own_photos_among_drawings_are_counted_and_warned_of(tmp_path, capsys):
    get_photos.get_photos(tmp_path, "practice")
    photos = get_photos.get_photos(write(tmp_path, {"train/cat.900.jpg": photo(900)}))
    output = capsys.readouterr().out
    assert photos.source == "folder" and photos.are_drawings
    assert photos.sources == {"practice": 42, "folder": 1} and len(answers_of(photos)) == 2
    assert "WARNING: 42 OF THESE 43 ARE DRAWINGS" in output and "1: put there by hand" in output
    assert get_photos.get_photos(write(tmp_path, {"test1/9.jpg": photo(3)})).answers_file is None
    capsys.readouterr()
    shutil.rmtree(tmp_path / "train")
    photos = get_photos.get_photos(write(tmp_path, MINE))
    assert photos.source == "folder" and not photos.are_drawings
    assert "DRAWINGS" not in capsys.readouterr().out


@pytest.mark.parametrize("with_answers", [True, False])
def test_sets_moved_away_and_back_keep_their_source_and_answers(with_answers, tmp_path):
    folder, expected = tmp_path / "data", {}
    names = ["train", "test1"] + ["test1_answers.csv"] * with_answers
    for source, lying in (
        ("practice", {}),
        ("google", {"cats_and_dogs_filtered.zip": google()}),
        ("microsoft", {"kagglecatsanddogs_5340.zip": microsoft(30)}),
        ("kaggle", {"dogs-vs-cats.zip": kaggle()}),
    ):
        write(folder, lying)
        photos = get_photos.get_photos(folder, source)
        assert photos.source == source and (photos.answers_file is None) == (source == "kaggle")
        expected[source] = answers_of(photos)
        move(folder, tmp_path / source, *names)
    for source in random.Random(1).sample(list(expected) * 2, 8):
        move(tmp_path / source, folder, *names)
        photos = get_photos.get_photos(folder)
        assert photos.source == source and photos.are_drawings == (source == "practice")
        assert answers_of(photos) == expected[source]
        move(folder, tmp_path / source, *names)


def test_the_note_names_each_file_with_its_size_and_a_checksum(tmp_path):
    get_photos.get_photos(write(tmp_path, HALVES))
    (one,) = json.loads((tmp_path / "photos_source.json").read_text(encoding="utf-8"))["sets"]
    assert one["source"] == "kaggle" and set(one["files"]) == set(READY)
    for name, data in READY.items():
        assert one["files"][name].startswith(f"{len(data)}-")


# --- Not being able to look is no verdict --------------------------------------------------------


@pytest.mark.parametrize(
    "problem, told",
    [
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (MemoryError(), "not enough memory"),
    ],
    ids=repr,
)
def test_what_could_not_be_read_is_told_and_tried_again(problem, told, tmp_path, monkeypatch):
    write(tmp_path, READY)
    read = Path.read_bytes

    def read_bytes(path):
        if path.name == "cat.3.jpg":
            raise problem
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    photos = get_photos.get_photos(tmp_path)
    assert photos.left_out == {"train/cat.3.jpg": f"could not be read this time ({told})"}
    with pytest.raises(archives.PhotosError, match=rf"cat\.3\.jpg: {told}"):
        get_photos.load_photos(tmp_path / "train", ["cat.3.jpg"])
    monkeypatch.undo()
    assert get_photos.get_photos(tmp_path).left_out == {}


def test_a_decoder_that_lacks_memory_gives_no_verdict(tmp_path, monkeypatch):
    def out_of_memory(_):
        raise OSError("out of memory when reading image file")

    write(tmp_path, READY)
    monkeypatch.setattr(ImageFile.ImageFile, "load", out_of_memory)
    assert "could not be read this time (out of memory" in refused(tmp_path)
    monkeypatch.undo()
    assert get_photos.get_photos(tmp_path).left_out == {}


def test_verdicts_of_another_version_of_the_check_do_not_count(tmp_path, monkeypatch):
    write(tmp_path, READY | {"train/cat.50.jpg": saved(picture(), "AVIF")})
    monkeypatch.setattr(decoding, "FORMATS", ["JPEG"])
    monkeypatch.setattr(get_photos, "CHECK", "1, an old Pillow")
    assert "train/cat.50.jpg" in get_photos.get_photos(tmp_path).left_out
    monkeypatch.undo()
    assert get_photos.get_photos(tmp_path).left_out == {}


# --- One rule for JPEGs that are cut, and all of Pillow's formats --------------------------------


def noise(mode="RGB", **options):
    """Return a JPEG of 80 rows that no two neighboring pixels of are alike."""
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    return saved(Image.fromarray(pixels).convert(mode), quality=90, **options)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9", b"\xff\xd9" + bytes(500)])
@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}, {"optimize": True}], ids=str)
def test_one_rule_for_jpegs_that_are_cut(options, end, mode, tmp_path):
    data = noise(mode, **options)
    write(tmp_path, {f"{p}.jpg": data[: len(data) * p // 100] + end for p in (30, 50, 65, 85, 95)})
    for percent in (30, 50, 65):
        assert "cut short" in get_photos.examine(tmp_path / f"{percent}.jpg")[1], percent
        with pytest.raises(archives.PhotosError, match="cut short"):
            get_photos.load_photos(tmp_path, [f"{percent}.jpg"], (40, 40))
    for percent in (85, 95):
        assert get_photos.examine(tmp_path / f"{percent}.jpg")[1] == ""
    assert 60 <= decoding.decode(tmp_path / "85.jpg", (80, 80)).height < 80


@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_whole_photo_with_a_gray_bottom_keeps_it(progressive, end, tmp_path):
    image = picture(size=(80, 200))
    image.paste((128, 128, 128), (0, 60, 80, 200))
    write(tmp_path, {"cat.0.jpg": saved(image, progressive=progressive)[:-2] + end})
    assert decoding.decode(tmp_path / "cat.0.jpg", (80, 200)).size == (80, 200)
    assert decoding.decode(tmp_path / "cat.0.jpg", (1, 1)).height in (25, 200)


@pytest.mark.parametrize("form", ["AVIF", "JPEG2000", "PPM", "TGA", "PCX", "DIB", "SGI", "QOI"])
def test_what_pillow_can_decode_is_kept(form, tmp_path):
    write(tmp_path, READY | {"train/cat.50.jpg": saved(picture(7), form)})
    photos = get_photos.get_photos(tmp_path)
    assert photos.left_out == {}
    pixels = get_photos.load_photos(photos.train_folder, ["cat.50.jpg"], (48, 36))[0]
    assert abs(pixels.astype(int) - np.asarray(picture(7))).mean() < 12


@pytest.mark.parametrize("form", ["ICO", "EPS", "ICNS"])
def test_what_is_no_photo_is_left_out(form, tmp_path):
    write(tmp_path, READY | {"train/cat.50.jpg": saved(picture(7, (64, 64)), form)})
    photos = get_photos.get_photos(tmp_path)
    assert photos.left_out == {"train/cat.50.jpg": "not a picture that Pillow can decode"}


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES])
def test_a_file_that_cannot_be_written_stays_as_it_was(error, tmp_path, monkeypatch):
    def fail(_):
        raise OSError(error, os.strerror(error))

    write(tmp_path, {"note.json": b"old"})
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError):
        files.write_aside(tmp_path / "note.json", lambda aside: aside.write_text("new"))
    assert content(tmp_path) == {"note.json": b"old"}


# --- Every case in one sentence ------------------------------------------------------------------


def packed(method, damage=False):
    """Return an archive packed with a method of zipfile, damaged in its first photo if wanted."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", method) as archive:
        for name, data in READY.items():
            archive.writestr(name, data * 20)
    data = bytearray(memory.getvalue())
    if damage:
        data[60:90] = bytes(30)
    return bytes(data)


def of_method(number):
    """Return an archive that says it is packed with a method that zipfile lacks."""
    data = bytearray(zipped(READY))
    for start_of, place in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):
        for found in range(len(data)):
            if data[found : found + 4] == start_of:
                data[found + place] = number
    return bytes(data)


LONG = f"train/cat.{'0' * 300}.jpg"
SENTENCES = {
    "damaged LZMA": ({"dogs-vs-cats.zip": packed(zipfile.ZIP_LZMA, True)}, "cut short or damaged"),
    "damaged BZip2": ({"dogs-vs-cats.zip": packed(zipfile.ZIP_BZIP2, True)}, "short or damaged"),
    "deflate64": ({"dogs-vs-cats.zip": of_method(9)}, "in a way that Python cannot unpack"),
    "PPMd": ({"dogs-vs-cats.zip": of_method(98)}, "Unpack it with another program"),
    "a long name": ({"dogs-vs-cats.zip": zipped(READY | {LONG: photo()})}, "name of 308 charact"),
    "train/cats": (
        {f"train/{k}s/{k}.{n}.jpg": photo() for k in ("cat", "dog") for n in range(3)},
        "no photo with a name like cat.0.jpg or dog.0.jpg. Rename the photos",
    ),
    "Train/cats": ({"Train/cats/cat.1.jpg": photo()}, "no photo with a name like cat.0.jpg"),
    "only Train.zip": ({"Train.zip": HALVES["train.zip"]}, "rain.zip lies there, but test1.zip do"),
    "only Train": (renamed(train_files(), ("train", "Train")), "holds photos, but"),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_a_sentence_says_what_is_wrong(case, tmp_path):
    lying, told = SENTENCES[case]
    before = content(write(tmp_path, lying))
    message = refused(tmp_path)
    assert told in message and "Reading or writing" not in message and "disk is" not in message
    assert content(tmp_path) == before


REDUX = {"train.zip": HALVES["train.zip"], "test.zip": zipped(renamed(test_files(), ("1/", "/")))}
PLAIN = {
    "Train and Test1": renamed(READY, ("train", "Train"), ("test1", "Test1")),
    "TRAIN and test": renamed(READY, ("train", "TRAIN"), ("test1", "test")),
    "Train/Train": renamed(READY, ("train", "Train/Train"), ("test1", "Test1/Test1")),
    "Train.zip": renamed(HALVES, ("train", "Train"), ("test1", "TEST1")),
    "copies of the halves": renamed(HALVES, (".zip", " (2).zip")),
    "dogs-vs-cats (1).zip": {"dogs-vs-cats (1).zip": kaggle()},
    "Dogs-vs-Cats.ZIP": {"Dogs-vs-Cats.ZIP": kaggle()},
    "Redux' halves": REDUX,
    "Redux' archive": {"dogs-vs-cats-redux-kernels-edition.zip": zipped(REDUX)},
}


@pytest.mark.parametrize("case", PLAIN)
def test_names_whose_meaning_is_plain_are_used(case, tmp_path):
    before = content(write(tmp_path, PLAIN[case]))
    photos = get_photos.get_photos(tmp_path)
    assert (len(photos.train_files), len(photos.test_files)) == (12, 4)
    assert photos.source == ("kaggle" if any("zip" in n.lower() for n in before) else "folder")
    assert content(tmp_path).items() >= before.items()
    assert get_photos.get_photos(tmp_path) == photos


def test_folders_that_are_not_understood_are_mentioned(tmp_path, capsys):
    get_photos.get_photos(write(tmp_path, {"cats/1.jpg": photo(), "dogs/1.jpg": photo()}))
    output = capsys.readouterr().out
    assert "Left alone" in output and str(tmp_path / "cats") in output


ROWS = "filename,label\n" + "".join(f"{n}.jpg,cat\n" for n in range(1, 5))
ANSWERS = {
    "plain": (ROWS.encode(), None),
    "Windows' line ends": (ROWS.replace("\n", "\r\n").encode(), None),
    "a byte order mark": (ROWS.encode("utf-8-sig"), None),
    "semicolons": (ROWS.replace(",", ";").encode(), "its first line is 'filename;label'"),
    "Cat": (ROWS.replace("cat", "Cat").encode(), "the label 'Cat' instead of cat or dog"),
    "a label missing": (ROWS.replace("2.jpg,cat", "2.jpg").encode(), "the label None instead of"),
    "UTF-16": (ROWS.encode("utf-16"), "not a text in UTF-8"),
    "UTF-16 without a mark": (ROWS.encode("utf-16-le"), "its first line is "),
    "a Korean code page": (("파일," + ROWS).encode("cp949"), "not a text in UTF-8"),
    "empty": (b"", "its first line is ''"),
    "too few": (ROWS.replace("4.jpg,cat\n", "").encode(), "no answers to some of these photos"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_answers_of_the_readers_are_used_or_it_is_said_why_not(case, tmp_path, capsys):
    data, told = ANSWERS[case]
    path = write(tmp_path, READY | {"test1_answers.csv": data}) / "test1_answers.csv"
    photos = get_photos.get_photos(tmp_path)
    output = capsys.readouterr().out
    assert path.read_bytes() == data
    if told:
        assert photos.answers_file is None and f"{path} is not used" in output and told in output
    else:
        assert photos.answers_file == path and "not used" not in output
        assert answers_of(photos) == {f"{n}.jpg": "cat" for n in range(1, 5)}


NOTES = [
    {"sets": 3},
    {"sets": [3]},
    {"sets": [{"source": ["x"], "files": {}}]},
    {"sets": [{"source": "google", "files": [1]}]},
    {"sets": [{"source": "google", "files": {"train/cat.0.jpg": {}}}]},
    {"source": ["google"], "train": "many", "answers": 7},
    {"check": decoding.CHECK, "files": 7},
    {"check": [], "files": {"train/cat.0.jpg": 3}},
    {"check": decoding.CHECK, "files": {"train/cat.0.jpg": [1, 2, 3, 4, 5]}},
    {"check": decoding.CHECK, "files": {"train/cat.0.jpg": {"a": 1}}},
]


@pytest.mark.parametrize("note", NOTES, ids=str)
def test_notes_and_verdicts_of_the_wrong_types_do_no_harm(note, tmp_path):
    names = ("photos_source.json", "checked_photos.json")
    write(tmp_path, READY | {name: json.dumps(note).encode() for name in names})
    photos = get_photos.get_photos(tmp_path)
    assert photos.source == "folder" and photos.left_out == {} and len(photos.train_files) == 12


@posix
@pytest.mark.parametrize("encoding", ["ascii", "cp949", "utf-8"])
def test_names_that_the_terminal_cannot_print(encoding, tmp_path, monkeypatch):
    folder = tmp_path / "사진 🐈"
    try:
        write(folder, READY | {"train/ü🐈.jpg": b"", os.fsdecode(b"train/\xff.jpg"): b""})
    except OSError:
        pytest.skip("this disk takes no such names")
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    assert len(get_photos.get_photos(folder).left_out) == 2
    assert "already holds photos" in refused(folder, "google")
    out.flush()
    assert rb"\udcff.jpg: unexpected name" in out.buffer.getvalue()


def test_a_certificate_that_fails_and_a_proxy_that_is_dead_are_named(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise requests.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify")

    with monkeypatch.context() as patch:
        patch.setattr(requests, "get", fails)
        with pytest.raises(archives.FetchError, match="its certificate is not safe; is the clock"):
            archives.download("https://localhost/x.zip", tmp_path / "x.part", 9, 5)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(archives.FetchError, match="the proxy of your settings"):
        archives.download("http://photos.invalid/x.zip", tmp_path / "x.part", 9, 5)


def test_too_few_photos_for_the_notebook(tmp_path):
    told = "cats: 2, dogs: 2, test photos: 1.*needs 3 cats, 3 dogs and a test photo at least: add"
    with pytest.raises(archives.PhotosError, match=told):
        get_photos.get_photos(write(tmp_path, train_files(2) | test_files(1)))
    get_photos.get_photos(write(tmp_path, train_files(3)))


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EACCES", "EIO", "ENAMETOOLONG"])
def test_the_disk_is_called_full_only_when_it_is(name, tmp_path, monkeypatch):
    number = getattr(errno, name)

    def fail(*_):
        raise OSError(number, os.strerror(number), "somewhere")

    write(tmp_path, HALVES)
    monkeypatch.setattr(archives.shutil, "copyfileobj", fail)
    message = refused(tmp_path)
    assert ("disk is not full" in message) == (name in ("ENOSPC", "EDQUOT"))
    assert "somewhere" in message and os.strerror(number) in message
