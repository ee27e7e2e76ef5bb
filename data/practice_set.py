"""Draw the practice set: cats and dogs for whoever has no photos at hand.

The drawings let every cell of the notebook run anywhere. Cats and dogs share coats, poses,
backgrounds and light; what tells them apart is what tells real ones apart: ears, muzzle, nose,
whiskers, tail and build. Nothing is downloaded, and the same seed draws the same pictures.
"""

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from scipy.interpolate import CubicSpline  # scikit-learn brings it along

LABELS = ("cat", "dog")
COATS = [  # red, green, blue: black, gray, white, cream, ginger, tan, brown, chocolate, silver
    (52, 49, 54), (122, 120, 126), (236, 232, 224), (232, 208, 166), (214, 138, 66),
    (196, 158, 110), (142, 96, 62), (92, 62, 46), (170, 172, 178),
]  # fmt: skip
EYES = [(196, 150, 52), (128, 84, 44), (134, 158, 76), (112, 158, 192)]
PINK, DARK = (222, 132, 136), (38, 32, 34)


def draw_practice_set(folder, train=1000, test=200, seed=42):
    """Draw a training folder and a test folder, laid out as Kaggle's are.

    Writes train/cat.0.jpg, train/dog.0.jpg and so on (half each), test1/1.jpg and so on in mixed
    order, and test1_answers.csv (columns filename and label).

    folder: where to write, a `pathlib.Path`
    train:  number of training drawings, even
    test:   number of test drawings
    seed:   whole number, 0 or more; the same seed gives the same files
    Raises FileExistsError where one of the three is there already: nothing is overwritten.
    """
    for part in ("train", "test1"):
        (folder / part).mkdir(parents=True)
    answers = np.random.default_rng([seed, 2]).permutation(np.arange(test) % 2)
    names = {f"train/{LABELS[i % 2]}.{i // 2}.jpg": i % 2 for i in range(train)}
    names |= {f"test1/{i}.jpg": kind for i, kind in enumerate(answers, start=1)}
    for index, (name, kind) in enumerate(names.items()):
        picture = draw(LABELS[kind], np.random.default_rng([seed, name.startswith("train"), index]))
        picture.save(folder / name, "JPEG", quality=88)
    lines = [f"{i}.jpg,{LABELS[kind]}" for i, kind in enumerate(answers, start=1)]
    with open(folder / "test1_answers.csv", "x", encoding="utf-8") as file:
        file.write("\n".join(["filename,label", *lines, ""]))


def draw(label, rng):
    """Return one drawing as an RGB Pillow image, 200 to 300 pixels each way.

    label: "cat" or "dog"
    rng:   numpy Generator that all choices are drawn from
    """
    size = tuple(int(side) for side in rng.integers(200, 301, 2))
    picture = background(rng, size)
    animal, ground = animal_layer(label, rng, size)

    shadow = Image.new("L", size)
    ImageDraw.Draw(shadow).ellipse(ground, fill=110)
    picture.paste((20, 18, 24), mask=shadow.filter(ImageFilter.BoxBlur(5)))
    picture.paste(rounded(rng, animal), mask=animal.getchannel("A"))
    return light(rng, picture)


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
    """Return a smooth curve through the points, as an array of (x, y)."""
    points = [*points, *points[:1]] if closed else points
    curve = CubicSpline(range(len(points)), points, bc_type="periodic" if closed else "natural")
    places = np.linspace(0, len(points) - 1, steps * (len(points) - 1) + 1)
    return curve(places[:-1] if closed else places)


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


def animal_layer(label, rng, size):
    """Return the animal on a transparent sheet, and the box of its shadow on the ground."""
    pose = rng.choice(["portrait", "sits", "lies"], p=[0.5, 0.35, 0.15])
    wide, high, middle = {  # extent of the pose in head radii and where its middle lies
        "portrait": (3.0, 3.4, (0, 0.4)),
        "sits": (4.2, 5.2, (0, 0.9)),
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
        "pale": [base, shade(base, 1.25), mix(base, (240, 236, 228), 0.8)][rng.integers(3)],
        "ear": [base, shade(base, 0.7), shade(base, 1.15)][rng.integers(3)],
        "mark": shade(base, 1.5 if dark else rng.uniform(0.5, 0.75)),
        "line": shade(base, 1.7 if dark else 0.5),
        "nose": [DARK, (84, 58, 54), PINK][rng.integers(3)],
        "eye": EYES[rng.integers(len(EYES))],
    }
    if rng.random() < 0.3:
        coat["mark"] = COATS[rng.integers(len(COATS))]
    angle, fur = rng.uniform(-0.15, 0.15), rng.choice([0, 0.5, 1.0])
    pen = Pen(rng, size, center, radius, angle, mirror, fur, coat["line"])

    body(pen, rng, label, coat, "sits" if pose == "portrait" else pose)
    head(pen, rng, label, coat, turn=rng.uniform(-0.9, 0.9))
    left, right, floor = (-1.2, 3.2, 2.0) if pose == "lies" else (-1.3, 1.3, 3.2)
    (x0, y0), (x1, y1) = sorted(map(tuple, pen.place([(left, floor), (right, floor)]) / 2))
    return pen.sheet.reduce(2), [x0, (y0 + y1) / 2 - 9, x1, (y0 + y1) / 2 + 9]


def body(pen, rng, label, coat, pose):
    """Draw tail, body and legs. A cat is slender with a long thin tail, a dog is sturdier."""
    cat = label == "cat"
    base, pale = coat["base"], coat["pale"]
    w = rng.uniform(0.9, 1.15) * (0.92 if cat else 1.05)  # how plump it is
    leg = 0.2 if cat else 0.25
    swing = rng.uniform(-0.3, 0.3)
    paws = pale if rng.random() < 0.5 else base

    def tail(x, y):
        """Draw the tail from its root."""
        path = [(0, 0), (0.6, -0.25), (0.85 + swing, -0.75)]
        if cat:
            path = [(0, 0), (0.8, 0.1), (1.2 + swing, -0.5), (1.0 + swing, -1.1)]
            path += [(1.35 + 2 * swing, -1.5)]
        pen.limb(np.add(path, (x, y)), *((0.2, 0.13) if cat else (0.3, 0.1)), base)

    if pose == "sits":
        tail(0.9 * w, 2.75)
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
    else:
        tail(2.9, 1.7)
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
    pen.blob(outline, base)

    kind = rng.integers(3)
    if kind == 0:  # a pale blaze down the forehead
        pen.blob([(move, -0.8), (0.14 + move, 0), (move, 0.4), (move - 0.14, 0)], pale, line=False)
    elif kind == 1:  # stripes on the forehead
        for x in (-0.25, 0, 0.25):
            pen.stroke([(x, -0.75), (x * 0.9 + move / 2, -0.42)], 0.09, mark)

    if not cat:
        hang = rng.uniform(0.25, 0.8)
        for side in (-1, 1):
            pen.blob([(side * 0.4, -0.85), (side * 0.95, -0.75), (side * 1.25, hang - 0.45),
                      (side * 1.15, hang), (side * 0.85, hang - 0.1), (side * 0.72, -0.35)],
                     ear)  # fmt: skip

    eyes(pen, cat, coat, move)
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
        pen.oval(x, y + 0.25, 0.5, 0.46, pale)
        pen.oval(x, y, 0.27, 0.19, coat["nose"], fur=False)
        pen.stroke([(x, y + 0.18), (x, y + 0.42)], 0.05, coat["line"])
        mouth = [(x - 0.32, y + 0.38), (x - 0.15, y + 0.5), (x, y + 0.42)]
        mouth += [(x + 0.15, y + 0.5), (x + 0.32, y + 0.38)]
        pen.stroke(mouth, 0.06, coat["line"])


def eyes(pen, cat, coat, move):
    """Draw two eyes; a cat's are wider and have upright pupils."""
    for side in (-1, 1):
        x, y = side * (0.44 if cat else 0.36) + move, -0.1 if cat else -0.2
        if cat:
            pen.oval(x, y, 0.23, 0.19, coat["eye"], tilt=side * 0.3, fur=False)
            pen.oval(x, y, 0.08, 0.17, DARK, line=False, fur=False)
        else:
            pen.oval(x, y, 0.17, 0.18, coat["eye"], fur=False)
            pen.oval(x, y, 0.11, 0.12, DARK, line=False, fur=False)
        pen.oval(x + 0.05, y - 0.07, 0.05, 0.05, (250, 250, 250), line=False, fur=False)


def background(rng, size):
    """Return a room, a garden or a blur of lights, as an RGB image."""
    width, height = size
    far, near = any_color(rng), any_color(rng)
    picture = Image.new("RGB", size, far)
    on = ImageDraw.Draw(picture)
    line = int(height * rng.uniform(0.45, 0.8))  # where wall and floor, or sky and grass, meet
    kind = rng.integers(3)
    if kind == 0:  # a room
        for x in range(0, width, int(rng.integers(16, 60))):
            on.line([x, 0, x, line], shade(far, rng.uniform(0.85, 1.1)), int(rng.integers(1, 9)))
        on.rectangle([0, line, width, height], near)
        for x in range(-width, 2 * width, int(rng.integers(25, 70))):
            on.line([width / 2 + (x - width / 2) / 2, line, x, height], shade(near, 0.88), 2)
    elif kind == 1:  # a garden
        picture.paste(mix(far, (170, 205, 235), 0.5), (0, 0, *size))
        near = mix(near, (120, 160, 70), rng.uniform(0.2, 0.8))
        for x in rng.uniform(0, width, 5):
            wide, high = rng.uniform(0.15, 0.4) * width, rng.uniform(0.15, 0.5) * height
            on.ellipse([x - wide, line - high, x + wide, line + high], any_color(rng))
        on.rectangle([0, line, width, height], near)
        for x, y in rng.uniform((0, line), (width, height), (160, 2)):
            blade = shade(near, rng.uniform(0.75, 1.25))
            on.line([x, y, x + rng.uniform(-4, 4), y - rng.uniform(5, 13)], blade, 2)
    else:  # lights and leaves, out of focus
        for x, y in rng.uniform(0, size, (30, 2)):
            wide, high = rng.uniform(0.03, 0.18, 2) * width
            on.ellipse([x - wide, y - high, x + wide, y + high], any_color(rng))
    return picture.filter(ImageFilter.BoxBlur(rng.uniform(1, 6)))


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
