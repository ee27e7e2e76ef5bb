"""Draw the practice set: cats and dogs for whoever has no photos at hand.

The drawings let every cell of the notebook run anywhere. Cats and dogs share coats, collars,
poses, backgrounds and light; what tells them apart is what tells real ones apart: ears, muzzle,
nose, whiskers, tail and build. Nothing is downloaded, and the same seed draws the same pictures.

    from practice_set import draw_practice_set
    draw_practice_set("some/folder")
"""

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

LABELS = ("cat", "dog")
COATS = [  # red, green, blue: black, gray, white, cream, ginger, tan, brown, chocolate, silver
    (52, 49, 54), (122, 120, 126), (236, 232, 224), (232, 208, 166), (214, 138, 66),
    (196, 158, 110), (142, 96, 62), (92, 62, 46), (170, 172, 178),
]  # fmt: skip
EYES = [(196, 150, 52), (128, 84, 44), (134, 158, 76), (112, 158, 192)]
PINK = (222, 132, 136)
DARK = (38, 32, 34)


def draw_practice_set(folder, train=1000, test=200, seed=42):
    """Draw a training folder and a test folder, laid out as Kaggle's are.

    Writes train/cat.0.jpg, train/dog.0.jpg and so on (half each), test1/1.jpg and so on in mixed
    order, and test1_answers.csv (columns filename and label). Folders are made where missing.

    folder: where to write, a path
    train:  number of training drawings, even, 2 or more
    test:   number of test drawings, 1 or more
    seed:   whole number, 0 or more; the same seed gives the same files
    Raises ValueError for numbers out of range, FileExistsError where train, test1 or the answers
    hold something already: nothing is ever overwritten.
    """
    if train < 2 or train % 2 or test < 1:
        raise ValueError(f"train must be even, 2 or more, and test 1 or more: got {train}, {test}.")
    folder = Path(folder)
    for part in (folder / "train", folder / "test1", folder / "test1_answers.csv"):
        if part.is_file() or (part.is_dir() and any(p.name[0] != "." for p in part.iterdir())):
            raise FileExistsError(
                f"{part} is there already, so nothing was drawn. "
                "Move it away or choose another folder."
            )

    answers = np.random.default_rng([seed, 2]).permutation(np.arange(test) % 2)
    names = {f"train/{LABELS[i % 2]}.{i // 2}.jpg": i % 2 for i in range(train)}
    names |= {f"test1/{i}.jpg": kind for i, kind in enumerate(answers, start=1)}
    # All drawings are kept in memory first (some 15 MB), so that a run that is
    # interrupted leaves no half-filled folder behind.
    files = {}
    for index, (name, kind) in enumerate(names.items()):
        picture = draw(LABELS[kind], np.random.default_rng([seed, name.startswith("train"), index]))
        memory = io.BytesIO()
        picture.save(memory, "JPEG", quality=88)
        files[name] = memory.getvalue()

    for part in ("train", "test1"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with open(folder / "test1_answers.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "label"])
        writer.writerows([f"{i}.jpg", LABELS[kind]] for i, kind in enumerate(answers, start=1))


def draw(label, rng, size=None):
    """Return one drawing as an RGB Pillow image.

    label: "cat" or "dog"
    rng:   numpy Generator that all choices are drawn from
    size:  (width, height) in pixels; left out, 200 to 300 each way
    Raises ValueError for another label.
    """
    if label not in LABELS:
        raise ValueError(f"label must be 'cat' or 'dog', got {label!r}.")
    size = tuple(int(side) for side in (size or rng.integers(200, 301, 2)))
    picture = background(rng, size)
    animal, ground = animal_layer(label, rng, size)

    # A soft shadow on the ground, then the animal, then whatever stands in front of it.
    shadow = Image.new("L", size)
    ImageDraw.Draw(shadow).ellipse(ground, fill=110)
    picture.paste((20, 18, 24), mask=shadow.filter(ImageFilter.BoxBlur(5)))
    picture.paste(rounded(rng, animal), mask=animal.getchannel("A"))
    if rng.random() < 0.5:
        front = in_front(rng, size)
        picture.paste(front, mask=front.getchannel("A"))
    return light(rng, picture)


# ---------------------------------------------------------------- pens and colors


def shade(color, factor):
    """Return a color made darker (factor below 1) or lighter (above 1)."""
    return tuple(int(min(255, max(0, part * factor + 12 * (factor - 1)))) for part in color)


def mix(first, second, share=0.5):
    """Return a color between two others; share is how much of the second, 0 to 1."""
    return tuple(int(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def any_color(rng, low=70, high=235):
    """Return a random color, each part from low to high (0 to 255), not too gaudy."""
    gray = rng.integers(low, high)
    return mix(tuple(rng.integers(low, high, 3)), (gray, gray, gray), rng.uniform(0.35, 0.8))


def smooth(points, closed=True, steps=6):
    """Return a smooth curve (Catmull-Rom) through the points, as an array of (x, y)."""
    p1 = np.asarray(points, float)
    if closed:
        p0, p2, p3 = np.roll(p1, 1, 0), np.roll(p1, -1, 0), np.roll(p1, -2, 0)
    else:
        row = np.vstack([2 * p1[0] - p1[1], p1, 2 * p1[-1] - p1[-2]])
        p0, p1, p2, p3 = row[:-3], row[1:-2], row[2:-1], row[3:]
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    p0, p1, p2, p3 = (p[:, None, :] for p in (p0, p1, p2, p3))
    curve = p1 + 0.5 * t * (
        p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0))
    )
    curve = curve.reshape(-1, 2)
    return curve if closed else np.vstack([curve, row[-2]])


class Pen:
    """Draws shapes, given in head radii, on a transparent sheet of twice the picture's size."""

    def __init__(self, rng, size, center, radius, angle, mirror, fur, line):
        """center and radius are in pixels of the picture; angle in radians; fur from 0 to 1."""
        self.rng, self.radius, self.fur, self.line = rng, radius * 2, fur, line
        self.sheet = Image.new("RGBA", (size[0] * 2, size[1] * 2))
        self.on = ImageDraw.Draw(self.sheet)
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1 if mirror else 1, 1])
        self.matrix, self.center = turn.T * self.radius, np.array(center) * 2

    def place(self, points):
        """Return where points in head radii lie on the sheet, in its pixels."""
        return np.asarray(points, float) @ self.matrix + self.center

    def shape(self, points, color, line=True, fur=True, closed=True):
        """Fill an outline, furry at its edge where fur is True; closed: also line its last side."""
        points = np.asarray(points, float)
        if fur and self.fur:
            out = points - points.mean(0)
            out /= np.linalg.norm(out, axis=1, keepdims=True) + 1e-6
            points = points + out * self.rng.uniform(-0.5, 1, (len(points), 1)) * self.fur * 0.1
        dots = [tuple(dot) for dot in self.place(points)]
        self.on.polygon(dots, fill=color)
        if line:
            dots += dots[:1] if closed else []
            self.on.line(dots, self.line, max(2, round(self.radius * 0.045)))

    def blob(self, points, color, **options):
        """Fill a smooth outline through a few points."""
        self.shape(smooth(points), color, **options)

    def oval(self, x, y, wide, high, color, tilt=0.0, **options):
        """Fill an oval with the given center and half axes; tilt in radians."""
        angle = np.linspace(0, 2 * np.pi, 30, endpoint=False)
        dots = np.column_stack([wide * np.cos(angle), high * np.sin(angle)])
        turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
        self.shape(dots @ turn + (x, y), color, **options)

    def limb(self, points, start, end, color):
        """Draw a leg or a tail along a smooth path, from one half width to another."""
        path = smooth(points, closed=False, steps=5)
        along = np.gradient(path, axis=0)
        side = np.column_stack([-along[:, 1], along[:, 0]])
        side /= np.linalg.norm(side, axis=1, keepdims=True) + 1e-6
        half = np.linspace(start, end, len(path))[:, None]
        tip = path[-1] + along[-1] / (np.linalg.norm(along[-1]) + 1e-6) * end
        edge = np.vstack([path + side * half, tip, (path - side * half)[::-1]])
        self.shape(edge, color, closed=False)

    def stroke(self, points, width, color):
        """Draw an open smooth line; width in head radii."""
        dots = [tuple(dot) for dot in self.place(smooth(points, closed=False))]
        self.on.line(dots, color, max(1, round(width * self.radius)))


# ---------------------------------------------------------------- the animal


def animal_layer(label, rng, size):
    """Return the animal on a transparent sheet, and the box of its shadow on the ground."""
    pose = rng.choice(["portrait", "sits", "stands", "lies"], p=[0.45, 0.32, 0.1, 0.13])
    wide, high, middle = {  # extent of the pose in head radii and where its middle lies
        "portrait": (3.0, 3.4, (0, 0.4)),
        "sits": (4.2, 5.2, (0, 0.9)),
        "stands": (4.8, 4.9, (1.0, 0.9)),
        "lies": (4.6, 3.9, (0.8, 0.3)),
    }[pose]
    mirror = rng.random() < 0.5
    radius = min(size[0] / wide, size[1] / high) * rng.uniform(0.85, 1.1)
    spare = np.maximum(np.array(size) - np.array([wide, high]) * radius, 0.25 * np.array(size))
    spot = np.array(size) / 2 + rng.uniform(-0.28, 0.28, 2) * spare
    center = spot - np.array([-middle[0] if mirror else middle[0], middle[1]]) * radius

    base = COATS[rng.integers(len(COATS))]
    base = mix(base, COATS[rng.integers(len(COATS))], rng.uniform(0, 0.25))
    dark = sum(base) < 240
    coat = {
        "base": base,
        "far": shade(base, 0.8),
        "pale": [base, shade(base, 1.25), mix(base, (240, 236, 228), 0.8)][rng.integers(3)],
        "ear": [base, shade(base, 0.7), shade(base, 1.15)][rng.integers(3)],
        "mark": shade(base, 1.5 if dark else rng.uniform(0.5, 0.75)),
        "line": shade(base, 1.7 if dark else 0.5),
        "nose": [DARK, (84, 58, 54), PINK][rng.integers(3)],
        "eye": EYES[rng.integers(len(EYES))],
    }
    if rng.random() < 0.3:
        coat["mark"] = COATS[rng.integers(len(COATS))]
    fur = rng.choice([0, 0.5, 1.0])
    pen = Pen(rng, size, center, radius, rng.uniform(-0.15, 0.15), mirror, fur, coat["line"])

    body(pen, rng, label, coat, "sits" if pose == "portrait" else pose)
    if rng.random() < 0.3:  # a collar with a tag
        color = any_color(rng)
        pen.stroke([(-0.62, 0.85), (0, 1.12), (0.62, 0.85)], 0.2, color)
        pen.oval(0, 1.25, 0.13, 0.13, (226, 190, 80), fur=False)
    turn = rng.uniform(-0.9, 0.9)
    head(pen, rng, label, coat, turn)
    left, right, floor = {"stands": (0.2, 3.6, 3.5), "lies": (-1.2, 3.2, 2.0)}.get(
        pose, (-1.3, 1.3, 3.2)
    )
    (x0, y0), (x1, y1) = sorted(map(tuple, pen.place([(left, floor), (right, floor)]) / 2))
    return pen.sheet.reduce(2), [x0, (y0 + y1) / 2 - 9, x1, (y0 + y1) / 2 + 9]


def body(pen, rng, label, coat, pose):
    """Draw tail, body and legs. A cat is slender with a long thin tail, a dog is sturdier."""
    cat = label == "cat"
    base, far, pale = coat["base"], coat["far"], coat["pale"]
    plump = rng.uniform(0.9, 1.15) * (0.92 if cat else 1.05)
    leg = 0.2 if cat else 0.25
    swing = rng.uniform(-0.3, 0.3)
    paws = pale if rng.random() < 0.5 else base

    def tail(x, y, lift):
        """Draw the tail from its root; lift from 0 (on the ground) to 1 (raised)."""
        if cat:
            path = [(0, 0), (0.8, 0.1 - 0.5 * lift), (1.2 + swing, -0.5 - lift)]
            path += [(1.0 + swing, -1.1 - 1.2 * lift), (1.35 + 2 * swing, -1.5 - 1.3 * lift)]
            pen.limb(np.add(path, (x, y)), 0.2, 0.13, base)
        else:
            path = [(0, 0), (0.6, -0.25 - 0.4 * lift), (0.85 + swing, -0.75 - 0.7 * lift)]
            pen.limb(np.add(path, (x, y)), 0.3, 0.1, base)

    if pose == "sits":
        tail(0.9 * plump, 2.75, 0)
        w = plump
        pen.blob([(-0.55 * w, 0.5), (-0.95 * w, 1.5), (-1.3 * w, 2.5), (-1.1 * w, 3.1), (0, 3.2),
                  (1.1 * w, 3.1), (1.3 * w, 2.5), (0.95 * w, 1.5), (0.55 * w, 0.5)],
                 base)  # fmt: skip
        markings(pen, rng, coat, (-0.9 * w, 0.9 * w), (1.2, 2.8))
        pen.oval(0, 1.5, 0.5 * w, 0.75, pale, line=False)
        for side in (-1, 1):
            pen.oval(side * 1.05 * w, 3.1, 0.42, 0.22, paws)
            pen.limb(
                [(side * 0.4, 1.8), (side * 0.42, 2.5), (side * 0.4, 3.1)], leg * 1.3, leg, base
            )
            pen.oval(side * 0.42, 3.2, leg * 1.35, 0.2, paws)
    elif pose == "stands":
        tail(3.3, 1.2, rng.uniform(0.2, 1))
        long, deep = (3.6, 2.0) if cat else (3.5, 2.3)
        for x, color in ((0.9, far), (2.7, far), (0.5, base), (3.1, base)):
            step = rng.uniform(-0.3, 0.3)
            pen.limb([(x, 1.6), (x + step / 2, 2.5), (x + step, 3.4)], leg * 1.5, leg * 0.9, color)
            pen.oval(x + step - 0.1, 3.45, leg * 1.3, 0.18, paws)
        pen.blob([(-0.3, 0.5), (0.1, 1.6), (0.7, deep), (2.0, deep * 0.9), (3.1, deep),
                  (long, 1.5), (long - 0.3, 0.95), (2.0, 0.85), (0.8, 0.6), (0.4, 0.2)],
                 base)  # fmt: skip
        markings(pen, rng, coat, (0.8, 3.1), (1.0, 1.7))
    else:
        tail(2.9, 1.7, 0)
        top = 0.3 if cat else 0.45
        pen.blob([(-0.6, 0.7), (-0.8, 1.7), (0, 2.0), (2.0, 2.0), (3.2, 1.9), (3.3, 1.2),
                  (2.5, top), (1.2, top - 0.1), (0.3, 0.2)], base)  # fmt: skip
        markings(pen, rng, coat, (0.7, 2.6), (0.6, 1.5))
        pen.blob([(1.7, 1.95), (1.8, 1.2), (2.4, 0.95), (3.0, 1.3), (3.0, 1.95)], base)
        pen.oval(1.6, 1.95, 0.5, 0.2, paws)
        for x in (0.3, -0.5):
            pen.limb([(x, 1.6), (x - 0.5, 1.85), (x - 1.0, 1.9)], leg * 1.2, leg, base)
            pen.oval(x - 1.05, 1.92, leg * 1.3, leg * 0.95, paws)


def markings(pen, rng, coat, across, down):
    """Put stripes, patches or nothing on the body, within the given ranges of x and y."""
    kind = rng.choice(["plain", "stripes", "patches"])
    for x in np.linspace(*across, 6):
        y = rng.uniform(*down)
        if kind == "stripes":
            path = [(x, down[0]), (x + 0.12, sum(down) / 2), (x, down[1])]
            pen.stroke(path, 0.12, coat["mark"])
        elif kind == "patches" and rng.random() < 0.6:
            pen.oval(x, y, *rng.uniform(0.2, 0.45, 2), coat["mark"], line=False)


def head(pen, rng, label, coat, turn):
    """Draw the head at the origin, 1 in radius; turn from -1 (facing left) to 1 (right)."""
    base, pale, mark = coat["base"], coat["pale"], coat["mark"]
    cat = label == "cat"
    tilt = rng.uniform(-0.15, 0.15)
    ear = mark if rng.random() < 0.3 else coat["ear"]
    inner = [mix(PINK, ear, 0.4), shade(ear, 0.6), shade(ear, 1.4)][rng.integers(3)]
    move = 0.22 * turn  # how far eyes and nose move sideways

    if cat:
        tall = rng.uniform(1.25, 1.6)
        for side in (-1, 1):
            root = [(side * 0.95, -0.2), (side * 0.2, -0.78)]
            tip = (side * rng.uniform(0.75, 0.95), -tall)
            pen.shape([root[0], tip, root[1]], ear)
            middle = np.mean([*root, tip], axis=0)
            small = [middle + 0.55 * (np.array(p) - middle) for p in (root[0], tip, root[1])]
            pen.shape(small, inner, line=False)
        outline = [(0, -0.86), (0.6, -0.72), (0.98, -0.15), (1.08, 0.32), (0.62, 0.76), (0, 0.88)]
    else:
        outline = [(0, -0.95), (0.55, -0.8), (0.8, -0.25), (0.78, 0.3), (0.6, 0.85), (0, 1.05)]
    outline += [(-x, y) for x, y in outline[-2:0:-1]]
    upright = not cat and rng.random() < 0.12
    if upright:
        for side in (-1, 1):
            pen.blob([(side * 0.8, -0.3), (side * 0.85, -1.1), (side * 0.7, -1.4),
                      (side * 0.4, -1.1), (side * 0.2, -0.7)], ear)  # fmt: skip
    pen.blob(outline, base)

    kind = rng.integers(3)
    if kind == 0:  # a pale blaze down the forehead
        pen.blob([(move, -0.8), (0.14 + move, 0), (move, 0.4), (move - 0.14, 0)], pale, line=False)
    elif kind == 1:  # stripes on the forehead
        for x in (-0.25, 0, 0.25):
            pen.stroke([(x, -0.75), (x * 0.9 + move / 2, -0.42)], 0.09, mark)
    if rng.random() < 0.25:  # a patch around one eye
        pen.oval(-0.4 + move, -0.1, 0.34, 0.36, mark, line=False)

    if not cat and not upright:
        hang = rng.uniform(0.25, 0.8)
        for side in (-1, 1):
            pen.blob([(side * 0.4, -0.85), (side * 0.95, -0.75), (side * 1.25, hang - 0.45),
                      (side * 1.15, hang), (side * 0.85, hang - 0.1), (side * 0.72, -0.35)],
                     ear)  # fmt: skip

    eyes(pen, rng, cat, coat, move)
    if cat:
        x, y = move * 1.3, 0.3
        whisker = DARK if rng.random() < 0.4 and sum(base) > 240 else (244, 242, 238)
        for side in (-1, 1):
            pen.oval(x + side * 0.2, y + 0.2, 0.25, 0.2, pale, line=False)
        pen.shape([(x - 0.13, y), (x + 0.13, y), (x, y + 0.14)], coat["nose"], fur=False)
        for side in (-1, 1):
            mouth = [(x, y + 0.14), (x + side * 0.1, y + 0.3), (x + side * 0.25, y + 0.24)]
            pen.stroke(mouth, 0.05, coat["line"])
            for rise in (-0.16, 0, 0.16):
                start = (x + side * 0.3, y + 0.15 + rise / 3)
                end = (x + side * 1.25, y + 0.1 + rise * 1.5 + tilt)
                bend = (x + side * 0.8, y + 0.05 + rise)
                pen.stroke([start, bend, end], 0.035, whisker)
    else:
        x, y = move * 2.6, 0.25
        if rng.random() < 0.4:
            pen.blob([(x - 0.2, 0.8), (x + 0.2, 0.8), (x + 0.18, 1.25), (x, 1.35),
                      (x - 0.18, 1.25)], PINK, fur=False)  # fmt: skip
        pen.oval(x, y + 0.25, 0.5, 0.46, pale)
        pen.oval(x, y, 0.27, 0.19, coat["nose"], fur=False)
        pen.stroke([(x, y + 0.18), (x, y + 0.42)], 0.05, coat["line"])
        mouth = [(x - 0.32, y + 0.38), (x - 0.15, y + 0.5), (x, y + 0.42)]
        mouth += [(x + 0.15, y + 0.5), (x + 0.32, y + 0.38)]
        pen.stroke(mouth, 0.06, coat["line"])


def eyes(pen, rng, cat, coat, move):
    """Draw two eyes, open or closed; a cat's are wider and have upright pupils."""
    closed = rng.random() < 0.12
    for side in (-1, 1):
        x, y = side * (0.44 if cat else 0.36) + move, -0.1 if cat else -0.2
        if closed:
            pen.stroke([(x - 0.18, y), (x, y + 0.1), (x + 0.18, y)], 0.07, coat["line"])
        elif cat:
            pen.oval(x, y, 0.23, 0.19, coat["eye"], tilt=side * 0.3, fur=False)
            pen.oval(x, y, 0.08, 0.17, DARK, line=False, fur=False)
        else:
            pen.oval(x, y, 0.17, 0.18, coat["eye"], fur=False)
            pen.oval(x, y, 0.11, 0.12, DARK, line=False, fur=False)
        if not closed:
            pen.oval(x + 0.05, y - 0.07, 0.05, 0.05, (250, 250, 250), line=False, fur=False)


# ---------------------------------------------------------------- what is around it


def background(rng, size):
    """Return a room, a garden, a blanket or a blur of lights, as an RGB image."""
    width, height = size
    far, near = any_color(rng), any_color(rng)
    picture = Image.new("RGB", size, far)
    on = ImageDraw.Draw(picture)
    line = int(height * rng.uniform(0.45, 0.8))  # where wall and floor, or sky and grass, meet
    kind = rng.integers(4)

    def spot(low, high):
        """Return the box of a random oval, half axes from low to high times the width."""
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        wide, high = rng.uniform(low, high, 2) * width
        return [x - wide, y - high, x + wide, y + high]

    if kind == 0:  # a room
        for x in range(0, width, int(rng.integers(16, 60))):
            on.line([x, 0, x, line], shade(far, rng.uniform(0.85, 1.1)), int(rng.integers(1, 9)))
        if rng.random() < 0.6:
            x, y, wide = *rng.uniform(0, 0.6, 2) * (width, line), width * rng.uniform(0.2, 0.4)
            on.rectangle([x, y, x + wide, y + wide], any_color(rng), any_color(rng), 5)
        on.rectangle([0, line, width, height], near)
        on.rectangle([0, line - 6, width, line], shade(far, 1.25))
        for x in range(-width, 2 * width, int(rng.integers(25, 70))):
            on.line([width / 2 + (x - width / 2) / 2, line, x, height], shade(near, 0.88), 2)
    elif kind == 1:  # a garden
        picture.paste(mix(far, (170, 205, 235), 0.5), (0, 0, *size))
        near = mix(near, (120, 160, 70), rng.uniform(0.2, 0.8))
        for x in rng.uniform(0, width, 5):
            wide, high = rng.uniform(0.15, 0.4) * width, rng.uniform(0.15, 0.5) * height
            tip = [(x - wide, line), (x, line - high), (x + wide, line)]
            if rng.random() < 0.5:
                on.polygon(tip, any_color(rng))
            else:
                on.ellipse([x - wide, line - high, x + wide, line + high], any_color(rng))
        on.rectangle([0, line, width, height], near)
        for x, y in rng.uniform((0, line), (width, height), (160, 2)):
            blade = shade(near, rng.uniform(0.75, 1.25))
            on.line([x, y, x + rng.uniform(-4, 4), y - rng.uniform(5, 13)], blade, 2)
    elif kind == 2:  # a blanket
        gap = int(rng.integers(18, 50))
        for x in range(0, width, gap):
            on.line([x, 0, x, height], mix(far, near, 0.5), int(rng.integers(3, gap)))
        if rng.random() < 0.7:
            for y in range(0, height, gap):
                on.line([0, y, width, y], mix(far, near, 0.8), gap // 3)
    else:  # lights and leaves, out of focus
        for _ in range(30):
            on.ellipse(spot(0.03, 0.18), any_color(rng))
    return picture.filter(ImageFilter.BoxBlur(rng.uniform(1, 6)))


def in_front(rng, size):
    """Return a transparent sheet with grass, a cushion, a ball or a twig in front."""
    width, height = size
    sheet = Image.new("RGBA", size)
    on = ImageDraw.Draw(sheet)
    color = any_color(rng)
    kind = rng.integers(4)
    if kind == 0:
        for x in rng.uniform(0, width, 45):
            tip = x + rng.uniform(-15, 15), height * rng.uniform(0.72, 0.95)
            on.polygon([(x - 4, height), tip, (x + 4, height)], shade(color, rng.uniform(0.7, 1.3)))
    elif kind == 1:
        x, y = rng.uniform(-0.3, 0.8) * width, rng.uniform(0.72, 0.88) * height
        box = [x, y, x + width * rng.uniform(0.3, 0.6), height + 30]
        on.rounded_rectangle(box, 18, color, shade(color, 0.6), 2)
    elif kind == 2:
        x, y, r = rng.uniform(0, 1) * width, rng.uniform(0.75, 0.95) * height, width * 0.1
        on.ellipse([x - r, y - r, x + r, y + r], color, shade(color, 0.6), 2)
        on.chord([x - r, y - r, x + r, y + r], 20, 160, shade(color, 1.4))
    else:
        x, y = rng.choice([-0.1, 1.1]) * width, rng.uniform(0, 0.5) * height
        end = width * rng.uniform(0.2, 0.8), rng.uniform(0, 0.9) * height
        on.line([(x, y), end], shade(color, 0.6), 4)
        for share in np.linspace(0.2, 1, 8):
            root = np.array([x, y]) + (np.array(end) - (x, y)) * share
            along, across = rng.uniform(-16, 16, (2, 2))
            leaf = [root, root + along + across / 2, root + along * 2, root + along - across / 2]
            on.polygon([tuple(dot) for dot in leaf], shade(color, rng.uniform(0.8, 1.3)))
    return sheet


def rounded(rng, animal):
    """Return the animal as RGB with soft shading, as if it were round and lit from one side."""
    mask = animal.getchannel("A").resize([max(1, side // 4) for side in animal.size])
    soft = mask.filter(ImageFilter.GaussianBlur(4))
    soft = ImageChops.offset(soft, int(rng.integers(-3, 4)), int(rng.integers(0, 4)))
    soft = soft.point([int(165 + level * 90 / 255) for level in range(256)]).resize(animal.size)
    return ImageChops.multiply(animal.convert("RGB"), Image.merge("RGB", [soft] * 3))


def light(rng, picture):
    """Return the picture under other light: brighter or darker, warm or cool, blurred, grainy."""
    if rng.random() < 0.6:
        picture = picture.filter(ImageFilter.BoxBlur(rng.uniform(0.3, 1)))
    pixels = np.asarray(picture, np.float32)
    height, width = pixels.shape[:2]
    down, across = rng.uniform(-0.25, 0.25, 2)
    ramp = 1 + np.linspace(-down, down, height)[:, None] + np.linspace(-across, across, width)
    warm = rng.uniform(-0.1, 0.1)
    tint = rng.uniform(0.8, 1.25) * np.array([1 + warm, 1, 1 - warm])
    pixels = pixels * ramp[:, :, None].astype(np.float32) * tint.astype(np.float32)
    grain = rng.standard_normal((height, width, 1), np.float32)
    pixels += grain * np.float32(rng.uniform(1, 7))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
