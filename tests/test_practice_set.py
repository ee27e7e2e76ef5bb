"""Checks the practice set: the same for the same seed, complete, fair, and a real exercise."""

import csv
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from practice_set import LABELS, draw, draw_practice_set


def contents(folder):
    """Return {name: bytes} of every file below a folder."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def read_answers(folder):
    """Return {file name: label} from the answers of a practice set."""
    with open(folder / "test1_answers.csv", newline="", encoding="utf-8") as file:
        return {row["filename"]: row["label"] for row in csv.DictReader(file)}


def read_pictures(paths, side):
    """Return the pictures as one array of bytes, each shrunk to side by side pixels."""
    return np.stack([np.asarray(Image.open(p).convert("RGB").resize((side, side))) for p in paths])


# Marks of all tests that look at the whole set; one process draws it and runs them.
WHOLE = [pytest.mark.once, pytest.mark.xdist_group("practice")]


@pytest.fixture(scope="module", params=[pytest.param(1200, marks=WHOLE)])
def full(tmp_path_factory):
    """The practice set as the notebook draws it, and the seconds of processor time it took."""
    folder = tmp_path_factory.mktemp("practice")
    start = time.process_time()
    assert draw_practice_set(folder) is None
    return folder, time.process_time() - start


@pytest.fixture(scope="module")
def training_pictures(full):
    """The 1,000 training drawings at 32 x 32 pixels, 0 to 1, with 0 for cat and 1 for dog."""
    paths = [full[0] / "train" / f"{label}.{i}.jpg" for i in range(500) for label in LABELS]
    return read_pictures(paths, 32) / 255, np.tile([0, 1], 500)


def held_out_score(features, answers):
    """Return the accuracy of a logistic regression on the notebook's validation drawings."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    features = features.reshape(len(answers), -1)
    train_x, held_x, train_y, held_y = train_test_split(
        features, answers, test_size=0.2, random_state=42, stratify=answers
    )
    return LogisticRegression(max_iter=3000).fit(train_x, train_y).score(held_x, held_y)


def test_same_seed_same_files(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        draw_practice_set(tmp_path / name, train=12, test=6, seed=seed)
    first, again, other = (contents(tmp_path / name) for name in "abc")
    assert first == again
    assert first.keys() == other.keys()
    assert not any(first[name] == other[name] for name in first if name.endswith(".jpg"))


def test_no_two_drawings_alike(full):
    pictures = [data for name, data in contents(full[0]).items() if name.endswith(".jpg")]
    assert len(pictures) == len(set(pictures)) == 1200


def test_one_drawing_does_not_depend_on_the_others():
    """A drawing depends on its own generator only, not on what was drawn before."""
    first = draw("cat", np.random.default_rng([1, 2, 3]))
    draw("dog", np.random.default_rng([4, 5, 6]))
    assert first.tobytes() == draw("cat", np.random.default_rng([1, 2, 3])).tobytes()


def test_names_counts_and_balance(full):
    names = set(contents(full[0]))
    expected = {f"train/{label}.{i}.jpg" for label in LABELS for i in range(500)}
    expected |= {f"test1/{i}.jpg" for i in range(1, 201)} | {"test1_answers.csv"}
    assert names == expected


def test_sizes_vary_as_photos_do(full):
    sizes = []
    for path in sorted((full[0] / "train").iterdir()):
        with Image.open(path) as picture:
            assert (picture.format, picture.mode) == ("JPEG", "RGB")
            sizes.append(picture.size)
    sizes = np.array(sizes)
    assert sizes.min() >= 200 and sizes.max() <= 300
    upright = (sizes[:, 0] < sizes[:, 1]).mean()
    assert 0.3 < upright < 0.7
    assert len({tuple(size) for size in sizes}) > 500
    total = sum(path.stat().st_size for path in full[0].rglob("*.jpg"))
    assert total < 40e6


def test_answers_belong_to_the_test_drawings(full):
    answers = read_answers(full[0])
    assert list(answers) == [f"{i}.jpg" for i in range(1, 201)]
    assert Counter(answers.values()) == {"cat": 100, "dog": 100}
    order = list(answers.values())
    assert order != sorted(order), "the test drawings should come in mixed order"


def test_each_answer_is_what_was_drawn(tmp_path, monkeypatch):
    """Names and answers follow the label a picture was drawn with."""
    import practice_set

    plain = {label: Image.new("RGB", (200, 200), color) for label, color in
             (("cat", (255, 0, 0)), ("dog", (0, 0, 255)))}  # fmt: skip
    monkeypatch.setattr(practice_set, "draw", lambda label, rng, size=None: plain[label])
    practice_set.draw_practice_set(tmp_path, train=8, test=30)

    def drawn(path):
        red, _, blue = Image.open(path).convert("RGB").getpixel((99, 99))
        return "cat" if red > blue else "dog"

    for path in (tmp_path / "train").iterdir():
        assert drawn(path) == path.name.split(".")[0]
    for name, label in read_answers(tmp_path).items():
        assert drawn(tmp_path / "test1" / name) == label


def test_drawing_takes_little_time(full):
    """1,200 drawings in under 30 s on an ordinary processor; three times that on a slow one."""
    assert full[1] < 90


def test_pixels_alone_do_not_give_it_away(training_pictures):
    assert held_out_score(*training_pictures) < 0.75


def test_colors_are_shared(training_pictures):
    """Neither the mean color of a drawing nor how much it varies tells cats from dogs."""
    pictures, answers = training_pictures
    assert held_out_score(pictures.mean((1, 2)), answers) < 0.6
    spread = np.concatenate([pictures.mean((1, 2)), pictures.std((1, 2))], axis=1)
    assert held_out_score(spread, answers) < 0.62


def test_borders_are_shared(training_pictures):
    """The rim of a drawing, which is mostly background, does not tell them apart either."""
    pictures, answers = training_pictures
    rim = np.concatenate(
        [pictures[:, 0], pictures[:, -1], pictures[:, :, 0], pictures[:, :, -1]], 1
    )
    assert held_out_score(rim, answers) < 0.65


def test_sizes_are_shared(full):
    """Width, height and file size say nothing about the animal."""
    from sklearn.preprocessing import scale

    rows = []
    for i in range(500):
        for label in LABELS:
            path = full[0] / "train" / f"{label}.{i}.jpg"
            with Image.open(path) as picture:
                rows.append([*picture.size, path.stat().st_size])
    assert held_out_score(scale(np.array(rows, float)), np.tile([0, 1], 500)) < 0.65


@pytest.mark.parametrize("label", LABELS)
def test_many_seeds_draw_without_trouble(label):
    for seed in range(40):
        pixels = np.asarray(draw(label, np.random.default_rng([7, seed])))
        assert pixels.std() > 5, f"seed {seed} is nearly blank"


@pytest.mark.parametrize("name", ["train/cat.0.jpg", "test1/1.jpg", "test1_answers.csv"])
def test_nothing_is_overwritten(tmp_path, name):
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_bytes(b"a photo of mine")
    with pytest.raises(FileExistsError, match=name.split("/")[0]):
        draw_practice_set(tmp_path, train=2, test=1)
    assert mine.read_bytes() == b"a photo of mine"
