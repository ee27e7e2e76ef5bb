"""Fetching over a real (loopback) connection, and step 0 killed at random moments."""

import hashlib
import http.server
import itertools
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time

import archives
import get_photos
import pytest
from photo_kit import (
    StandIn,
    content,
    google,
    kaggle,
    microsoft,
    test_files,
    train_files,
    write,
    zipped,
)

NAME = "cats_and_dogs_filtered.zip"
ARCHIVE = google(each=100)
WRONG = bytes([ARCHIVE[0] ^ 1]) + ARCHIVE[1:-1000] + bytes(1000)
TIMEOUT = 1.5
HALF = len(ARCHIVE) // 2


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ARCHIVE in the way that the first folder of the path names."""

    def do_GET(self):
        way = self.path.split("/")[1]
        asked = self.headers.get("Range")
        self.server.asked.append((way, asked))
        start = int(asked[len("bytes=") : -1]) if asked else 0
        if way == "missing":
            return self.send_error(404)
        if way == "broken":
            return self.send_error(500)
        if way == "silent":
            return self.server.closing.wait(30)
        if way == "moved":
            self.send_response(302)
            self.send_header("Location", f"/whole/{NAME}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        body = {
            "wrong": WRONG,
            "page": b"<html>Please log in.</html>",
            "longer": ARCHIVE * 3,
        }.get(way, ARCHIVE)
        if way in ("no_range", "page", "longer"):
            start, asked = 0, None
        self.send_response(206 if asked else 200)
        if asked:
            first = start + (7 if way == "other_part" else 0)
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        if way != "longer":
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        body = body[start:]
        if way == "cut" or (way == "cut_once" and not asked):
            self.wfile.write(body[:60_000])
        elif way == "cut_at_once":
            pass
        elif way == "trickle":
            for byte in body:
                if self.server.closing.wait(TIMEOUT / 4):
                    break
                self.wfile.write(bytes([byte]))
        elif way == "slowly":  # but fast enough
            for begin in range(0, len(body), 4096):
                self.wfile.write(body[begin : begin + 4096])
                time.sleep(0.01)
        else:
            self.wfile.write(body)

    def log_message(self, *_):
        """Keep quiet."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        server.handle_error = lambda *_: None  # a client that gave up is no error
        server.asked, server.closing = [], threading.Event()
        server.root = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


def spec_for(server, *ways, sha256=""):
    """Return a Source whose addresses behave in these ways."""
    addresses = tuple(f"{server.root}/{way}/{NAME}" for way in ways)
    return archives.Source("test", NAME, "", addresses, len(ARCHIVE), sha256)


def fetched(folder, spec):
    """Fetch and check that the result is whole and nothing else is left."""
    path = archives.fetch(folder, spec, TIMEOUT)
    assert path.read_bytes() == ARCHIVE and os.listdir(folder) == [NAME]


@pytest.mark.parametrize(
    "ways",
    [
        ["whole"],
        ["slowly"],
        ["moved"],
        ["no_range"],
        ["cut"],
        ["cut_once"],
        ["missing", "whole"],
        ["broken", "whole"],
        ["silent", "whole"],
        ["trickle", "whole"],
        ["wrong", "whole"],
        ["page", "whole"],
        ["longer", "whole"],
        ["cut_at_once", "whole"],
        ["missing", "silent", "wrong", "cut"],
    ],
    ids=" ".join,
)
def test_the_archive_arrives_whole(ways, server, tmp_path):
    fetched(tmp_path, spec_for(server, *ways))


def test_checksum(server, tmp_path):
    fetched(tmp_path, spec_for(server, "whole", sha256=hashlib.sha256(ARCHIVE).hexdigest()))


@pytest.mark.parametrize(
    "way, reason",
    [
        ("missing", "404 Not Found"),
        ("broken", "500 Internal Server Error"),
        ("silent", "no answer within 1.5 seconds"),
        ("trickle", "no answer within 1.5 seconds"),
        ("wrong", "not a whole zip archive"),
        ("page", f"it offers 27 bytes instead of {len(ARCHIVE):,}"),
        ("longer", f"it sent more than {len(ARCHIVE):,} bytes"),
        ("cut_at_once", "it cannot be reached"),
    ],
)
def test_the_reason_is_told(way, reason, server, tmp_path):
    began = time.monotonic()
    with pytest.raises(archives.FetchError) as error:
        archives.fetch(tmp_path, spec_for(server, way), TIMEOUT)
    assert str(error.value).startswith("127.0.0.1") and reason in str(error.value)
    assert time.monotonic() - began < 4 * TIMEOUT
    assert not (tmp_path / NAME).exists()


def test_a_wrong_checksum_is_told_and_the_file_is_thrown_away(server, tmp_path):
    with pytest.raises(archives.FetchError, match="SHA-256 checksum is not the expected one"):
        archives.fetch(tmp_path, spec_for(server, "whole", sha256="0" * 64), TIMEOUT)
    assert os.listdir(tmp_path) == []


def test_nobody_there(server, tmp_path):
    spec = archives.Source("test", NAME, "", ("http://127.0.0.1:9/x.zip",), len(ARCHIVE))
    with pytest.raises(archives.FetchError, match=r"127\.0\.0\.1:9: it cannot be reached"):
        archives.fetch(tmp_path, spec, TIMEOUT)


def test_what_has_arrived_is_resumed(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(ARCHIVE[:HALF])
    fetched(tmp_path, spec_for(server, "whole"))
    assert server.asked == [("whole", f"bytes={HALF}-")]


def test_a_cut_connection_is_resumed_at_once(server, tmp_path):
    fetched(tmp_path, spec_for(server, "cut_once"))
    assert server.asked == [
        ("cut_once", None),
        ("cut_once", f"bytes={60_000 // archives.BLOCK * archives.BLOCK}-"),
    ]


def test_a_page_instead_of_the_archive_does_not_cost_what_has_arrived(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(ARCHIVE[:HALF])
    with pytest.raises(archives.FetchError):
        archives.fetch(tmp_path, spec_for(server, "page", "missing", "silent"), TIMEOUT)
    assert (tmp_path / f"{NAME}.part").read_bytes() == ARCHIVE[:HALF]


@pytest.mark.parametrize("way", ["whole", "no_range", "other_part", "cut"])
@pytest.mark.parametrize(
    "old",
    [ARCHIVE[:1], ARCHIVE[:-1], ARCHIVE, bytes(HALF), bytes(len(ARCHIVE)), ARCHIVE + b"more", b""],
    ids=["a byte", "all but one", "all", "other half", "other file", "too long", "empty"],
)
def test_whatever_an_earlier_run_left_the_end_is_the_same(old, way, server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(old)
    fetched(tmp_path, spec_for(server, way))


def test_disk_space_is_checked_before(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=len(ARCHIVE))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(archives.PhotosError, match=r"needs about .* MB in .*, but only .* MB"):
        archives.fetch(tmp_path, spec_for(server, "whole"), TIMEOUT)
    assert server.asked == [] and os.listdir(tmp_path) == []


def test_auto_fetches_the_small_set(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(get_photos.SOURCES, "google", spec_for(server, "missing", "whole"))
    photos = get_photos.get_photos(tmp_path, timeout=TIMEOUT)
    assert photos.source == "google" and not photos.are_drawings
    assert len(photos.train_files) == 180 and len(photos.test_files) == 20
    assert f"Fetching {NAME}: 0.2 of 0.2 MB in 0:0" in capsys.readouterr().out
    before = content(tmp_path)
    assert get_photos.get_photos(tmp_path) == photos and content(tmp_path) == before
    assert len(server.asked) == 2


def test_auto_draws_when_nothing_can_be_fetched(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(get_photos.SOURCES, "google", spec_for(server, "missing", "silent"))
    monkeypatch.setitem(sys.modules, "practice_set", StandIn)
    photos = get_photos.get_photos(tmp_path, timeout=TIMEOUT)
    assert photos.are_drawings and photos.answers_file == tmp_path / "test1_answers.csv"
    output = capsys.readouterr().out
    assert "404 Not Found" in output and "no answer within 1.5 seconds" in output
    assert "THESE ARE DRAWINGS, NOT PHOTOS" in output
    assert get_photos.get_photos(tmp_path) == photos  # remembered
    assert "THESE ARE DRAWINGS, NOT PHOTOS" in capsys.readouterr().out


def test_a_chosen_source_does_not_give_way_to_another(server, tmp_path, monkeypatch):
    monkeypatch.setitem(get_photos.SOURCES, "google", spec_for(server, "missing"))
    with pytest.raises(archives.PhotosError, match=r"could not be fetched \(.*404 Not Found\)"):
        get_photos.get_photos(tmp_path, "google", timeout=TIMEOUT)
    assert os.listdir(tmp_path) == []


# --- Killed at any moment ------------------------------------------------------------------------

# Runs step 0 in a process of its own that kills itself at its n-th use of the file system.
RUNNER = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import photo_kit
import archives, get_photos, http.client, requests
folder, source, address, size, moment = sys.argv[1:]
get_photos.SOURCES["google"] = archives.Source("t", {name!r}, "", (address,), int(size))
sys.modules["practice_set"] = photo_kit.StandIn
events = {{"open", "os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir"}}
events |= {{"os.listdir", "os.scandir"}}
count = 0
def kill(event, arguments):
    global count
    if event in events and folder in str(arguments[0]):
        count += 1
        if count == int(moment):
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
sys.addaudithook(kill)
get_photos.get_photos(folder, source)
print("uses", count)
"""
LYING = {
    "kaggle": {"dogs-vs-cats.zip": kaggle(40, 30)},
    "halves": {"train.zip": zipped(train_files(30)), "test1.zip": zipped(test_files(20))},
    "microsoft": {"kagglecatsanddogs_5340.zip": microsoft(30)},
    "google": {},
    "practice": {},
    "one half": {**train_files(20), "test1.zip": zipped(test_files(20))},
    "into empty folders": {
        "train/.keep": b"",
        "test1/.keep": b"",
        "dogs-vs-cats.zip": kaggle(20, 9),
    },
}


# Python's own part in it (`shutil`, `zipfile`) is seen in two of the scenes.
SCENES = [
    scene if scene in ("google", "kaggle") else pytest.param(scene, marks=pytest.mark.once)
    for scene in LYING
]


@pytest.mark.parametrize("scene", SCENES)
def test_killed_at_random_moments_it_ends_in_the_same_state(scene, server, tmp_path, monkeypatch):
    source = scene if scene in get_photos.SOURCES else "auto"
    monkeypatch.setitem(get_photos.SOURCES, "google", spec_for(server, "whole"))
    monkeypatch.setitem(sys.modules, "practice_set", StandIn)
    code = RUNNER.format(tests=os.path.dirname(__file__), name=NAME)

    def run(folder, moment):
        address = f"{server.root}/whole/{NAME}"
        command = [sys.executable, "-c", code, folder, source, address, len(ARCHIVE), moment]
        return subprocess.run([str(part) for part in command], capture_output=True, text=True)

    undisturbed = write(tmp_path / "undisturbed", LYING[scene])
    undisturbed.mkdir(exist_ok=True)
    done = run(undisturbed, 0)
    assert done.returncode == 0, done.stderr
    uses, expected = int(done.stdout.split()[-1]), content(undisturbed)
    assert not any(re.match(r"\.get|writing|.*\.part$", name) for name in expected)

    draw = random.Random(scene)
    # The moves into place are among the last uses of the file system.
    moments = [1, *draw.sample(range(2, uses + 1), 2), *draw.sample(range(uses - 25, uses + 1), 2)]
    for number, moment in enumerate(moments):
        folder = write(tmp_path / f"killed {number}", LYING[scene])
        folder.mkdir(exist_ok=True)
        first = run(folder, moment)
        assert first.returncode != 0 and "uses" not in first.stdout, moment
        again = run(folder, draw.randrange(1, uses)) if number == 4 else first
        assert again.returncode != 0 or "uses" in again.stdout
        get_photos.get_photos(folder, source)
        assert content(folder) == expected, moment


def test_killed_from_outside_while_it_fetches(server, tmp_path):
    code = RUNNER.format(tests=os.path.dirname(__file__), name=NAME)
    command = [sys.executable, "-c", code, str(tmp_path), "google"]
    part = tmp_path / f"{NAME}.part"
    for way in ("slowly", "slowly", "whole"):
        process = subprocess.Popen(
            [*command, f"{server.root}/{way}/{NAME}", str(len(ARCHIVE)), "0"],
            stdout=subprocess.DEVNULL,
        )
        if way == "slowly":
            before = archives.size_of(part)
            for _ in itertools.count():
                if archives.size_of(part) > before or process.poll() is not None:
                    break
                time.sleep(0.02)
            process.kill()
        assert (process.wait(30) == 0) == (way == "whole")
    assert (tmp_path / NAME).read_bytes() == ARCHIVE and not part.exists()
    assert sum(asked is not None for _, asked in server.asked) >= 1
    assert get_photos.check_photos(tmp_path).source == "google"
