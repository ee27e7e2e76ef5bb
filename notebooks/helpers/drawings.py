"""Draw the practice set: cats and dogs for step 0 where no photos can be fetched.

Cats and dogs share coats, bodies, backgrounds and light; what tells them apart is what tells real
ones apart: ears, eyes, muzzle, nose and whiskers.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .archives import DRAWING, set_test_photos_aside, show_progress

COATS = [  # red, green, blue: black, gray, white, cream, ginger, tan, brown, chocolate, silver
    (52, 49, 54), (122, 120, 126), (236, 232, 224), (232, 208, 166), (214, 138, 66),
    (196, 158, 110), (142, 96, 62), (92, 62, 46), (170, 172, 178),
]  # fmt: skip
EYES = [(206, 168, 52), (128, 84, 44), (134, 168, 76), (112, 158, 192)]
PINK, DARK, PALE = (222, 132, 136), (38, 32, 34), (246, 244, 240)


def draw_practice_set(folder, train=1000, test=200, seed=42):
    """Draw pictures into folder/train and folder/test1, half cats, half dogs, as step 0 needs them.

    The answers to the test pictures go to folder/answers.csv. The same seed draws the same
    pictures. Raises FileExistsError where folder/train or folder/test1 is there already.
    """
    (folder / "train").mkdir(parents=True)
    for index in range(train + test):
        label = ("cat", "dog")[index % 2]
        picture = draw(label, np.random.default_rng([seed, index]))
        path = folder / "train" / f"{label}.{index // 2}.jpg"
        picture.save(path, quality=88, comment=DRAWING)
        show_progress("Drawing", index + 1, train + test)
    set_test_photos_aside(folder, test / (train + test), seed)


def draw(label, rng):
    """Return a picture of a "cat" or a "dog" as an RGB image, 200 to 300 pixels each way.

    rng: NumPy's random Generator, from which all choices are drawn.
    """
    size = tuple(int(side) for side in rng.integers(200, 301, 2))
    picture = background(rng, size)
    pen = Pen(rng, size)
    coat = COATS[rng.integers(9)]
    mark = [coat, shade(coat, 0.6), shade(coat, 1.4), COATS[rng.integers(9)]][rng.integers(4)]
    draw_body(pen, rng, coat, mark)
    look = rng.uniform(-0.2, 0.2)  # how far eyes and nose are turned to one side
    draw_head = draw_cat if label == "cat" else draw_dog
    draw_head(pen, rng, coat, mark, look)
    animal = pen.sheet.reduce(2)
    picture.paste(animal, mask=animal.getchannel("A"))
    return light(rng, picture)


class Pen:
    """Draws shapes given in head radii, from the head's middle, on a sheet of twice the size."""

    def __init__(self, rng, size):
        """Choose the place, radius (in pixels) and tilt of the head in a picture of this size."""
        self.sheet = Image.new("RGBA", (size[0] * 2, size[1] * 2))
        self.on = ImageDraw.Draw(self.sheet)
        self.radius = 2 * min(size) * rng.uniform(0.2, 0.3)
        self.middle = 2 * np.array(size) * rng.uniform(0.38, 0.62, 2)
        tilt = rng.uniform(-0.3, 0.3)
        self.turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])

    def place(self, points):
        """Return where points (x, y) lie on the sheet, in pixels."""
        dots = np.asarray(points, float) @ self.turn * self.radius + self.middle
        return [tuple(dot) for dot in dots.tolist()]

    def shape(self, points, color, line=True):
        """Fill the outline through points; line: darker at its edge, or lighter if it is dark."""
        dots = self.place(points)
        self.on.polygon(dots, fill=color)
        if line:
            edge = shade(color, 0.55 if sum(color) > 250 else 1.8)
            self.on.line([*dots, dots[0]], edge, round(self.radius / 25))

    def oval(self, x, y, wide, high, color, tilt=0.0, line=True):
        """Fill an oval with this middle and these half axes, tilted by radians."""
        angle = np.linspace(0, 2 * np.pi, 40)
        across, down = wide * np.cos(angle), high * np.sin(angle)
        cos, sin = np.cos(tilt), np.sin(tilt)
        points = [x + across * cos - down * sin, y + across * sin + down * cos]
        self.shape(np.transpose(points), color, line)

    def stroke(self, points, color, width=0.05):
        """Draw a line through points."""
        self.on.line(self.place(points), color, round(self.radius * width), joint="curve")


def shade(color, factor):
    """Return a color made darker (factor below 1) or lighter (above 1)."""
    return tuple(min(255, max(0, int(part * factor + 15 * (factor - 1)))) for part in color)


def draw_body(pen, rng, coat, mark):
    """Draw what cats and dogs have in common: a body, two legs, and stripes or patches."""
    wide, kind = rng.uniform(0.8, 1.3), rng.choice(["plain", "stripes", "patches"])
    pen.oval(0, 1.9, wide, 1.4, coat)
    for x in np.linspace(-0.6, 0.6, 5) * wide:
        if kind == "stripes":
            pen.stroke([(x, 1.1), (x * 1.1, 1.6), (x, 2.1)], mark, 0.13)
        elif kind == "patches":
            pen.oval(x, rng.uniform(1.1, 2.4), *rng.uniform(0.1, 0.3, 2), mark, line=False)
    for side in (-0.4, 0.4):
        pen.oval(side, 2.4, 0.26, 0.95, coat)


def draw_cat(pen, rng, coat, mark, look):
    """Draw a cat's head: pointed ears, slit pupils, a small nose, and whiskers."""
    tip, eye = (rng.uniform(0.7, 0.95), -rng.uniform(1.2, 1.6)), EYES[rng.integers(4)]
    ear = np.array([(0.95, -0.15), tip, (0.15, -0.75)])
    for side in (-1, 1):
        pen.shape(ear * (side, 1), mark)
        pen.shape((ear * 0.6 + ear.mean(0) * 0.4) * (side, 1), PINK, line=False)
    pen.oval(0, 0, 1.05, 0.88, coat)
    for side in (-1, 1):
        pen.oval(side * 0.44 + look, -0.1, 0.24, 0.19, eye, tilt=side * 0.3)
        pen.oval(side * 0.44 + look, -0.1, 0.07, 0.17, DARK, line=False)
        pen.oval(side * 0.19 + look, 0.46, 0.25, 0.2, shade(coat, 1.2), line=False)
        for rise in (-0.18, 0, 0.18):
            path = np.array([(0.3, rise / 3), (0.8, rise), (1.4, rise * 2)]) * (side, 1)
            pen.stroke(np.add(path, (look, 0.42)), PALE if sum(coat) < 500 else DARK, 0.035)
        mouth = [(0, 0.42), (side * 0.1, 0.6), (side * 0.28, 0.54)]
        pen.stroke(np.add(mouth, (look, 0)), DARK)
    nose = [(-0.14, 0.28), (0.14, 0.28), (0, 0.42)]
    pen.shape(np.add(nose, (look, 0)), PINK if rng.random() < 0.5 else DARK)


def draw_dog(pen, rng, coat, mark, look):
    """Draw a dog's head: hanging ears, round pupils, and a long muzzle with a broad nose."""
    hang, eye, x = rng.uniform(0.3, 0.8), EYES[rng.integers(4)], look * 1.6
    pen.oval(0, 0, 0.85, 1.0, coat)
    for side in (-1, 1):
        pen.oval(side * 0.88, hang - 0.5, 0.3, 0.75, mark, tilt=-side * 0.25)
        pen.oval(side * 0.36 + look, -0.25, 0.17, 0.18, eye)
        pen.oval(side * 0.36 + look, -0.25, 0.11, 0.12, DARK, line=False)
    pen.oval(x, 0.5, 0.52, 0.48, shade(coat, 1.2))
    if rng.random() < 0.4:
        pen.oval(x, 0.85, 0.14, 0.22, PINK)
    pen.stroke([(x, 0.4), (x, 0.65)], DARK)
    pen.stroke([(x - 0.32, 0.6), (x - 0.16, 0.7), (x + 0.16, 0.7), (x + 0.32, 0.6)], DARK)
    pen.oval(x, 0.25, 0.27, 0.19, DARK)


def background(rng, size):
    """Return a wall with blurred things on it, and a floor, as an RGB image."""
    colors = rng.integers(60, 230, (32, 3)) * 0.5 + rng.integers(60, 230, (32, 1)) * 0.5
    wall, floor, *others = [tuple(color) for color in colors.astype(int).tolist()]
    picture = Image.new("RGB", size, wall)
    on = ImageDraw.Draw(picture)
    for color in others[: rng.integers(30)]:
        (x, y), (wide, high) = rng.uniform(0, size), rng.uniform(5, 45, 2)
        shape = on.ellipse if rng.random() < 0.6 else on.rectangle
        shape([x - wide, y - high, x + wide, y + high], color)
    on.rectangle([0, size[1] * rng.uniform(0.55, 0.9), *size], floor)
    return picture.filter(ImageFilter.BoxBlur(rng.uniform(1, 6)))


def light(rng, picture):
    """Return the picture under other light: brighter at one side, warm or cool, with grain."""
    wide, high = picture.size
    down, across = rng.uniform(-0.25, 0.25, 2)
    ramp = 1 + np.linspace(-down, down, high)[:, None] + np.linspace(-across, across, wide)
    tint = rng.uniform(0.8, 1.2) * rng.uniform(0.9, 1.1, 3)
    grain = rng.standard_normal((high, wide, 1), np.float32) * np.float32(rng.uniform(1, 8))
    pixels = np.asarray(picture.filter(ImageFilter.BoxBlur(rng.uniform(0, 1))), np.float32)
    pixels = pixels * ramp[:, :, None].astype(np.float32) * tint.astype(np.float32) + grain
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
