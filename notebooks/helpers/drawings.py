"""Draw the practice set: cats and dogs for step 0 where no photos can be fetched.

Cats and dogs share coats, bodies, backgrounds and light; what tells them apart is what tells real
ones apart: ears, eyes, muzzle, nose and whiskers.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .archives import DRAWING, set_test_photos_aside, show_progress

COATS = ["#343136", "#7a787e", "#ece8e0", "#e8d0a6", "#d68a42"]  # black, gray, white, cream, ginger
COATS += ["#c49e6e", "#8e623e", "#5c3e2e", "#aaacb2"]  # tan, brown, chocolate, silver
EYES = ["#cea834", "#80542c", "#86a84c", "#709ec0"]
PINK, DARK, EDGE = "#de8488", "#262022", "#5c5454"


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
    """Return a "cat" or a "dog", drawn at random, as an RGB image, 200 to 300 pixels each way."""
    sheet = Image.new("RGBA", (480, 480))
    on, (coat, mark) = ImageDraw.Draw(sheet), rng.choice(COATS, 2)
    oval(on, 0, 2, rng.uniform(0.8, 1.3), 1.5, coat)  # the body
    for side in (-1, 1):  # the legs
        oval(on, side * 0.4, 2.6, 0.27, 0.95, coat)
    draw_head = draw_cat if label == "cat" else draw_dog
    draw_head(on, rng, coat, mark, eye=rng.choice(EYES))

    picture = background(rng)
    width = int(min(picture.size) * rng.uniform(1.6, 2.4))
    sheet = sheet.rotate(rng.uniform(-17, 17)).resize((width, width), Image.Resampling.BILINEAR)
    corner = np.multiply(picture.size, rng.uniform(0.4, 0.6, 2)) - width / 2
    picture.paste(sheet, corner.astype(int).tolist(), mask=sheet)
    light = rng.uniform(0.7, 1.2) * rng.uniform(0.9, 1.1, 3)  # dim or bright, warm or cool
    return Image.fromarray((np.asarray(picture) * light).clip(0, 255).astype(np.uint8))


def at(*places):
    """Return where places lie on the sheet, in pixels; they count in head radii from its middle."""
    return [240 + 60 * place for place in places]


def oval(on, x, y, wide, high, color):
    """Draw an oval with this middle and these half axes."""
    on.ellipse(at(x - wide, y - high, x + wide, y + high), color, EDGE, 2)


def draw_cat(on, rng, coat, mark, eye):
    """Draw a cat's head: pointed ears, slit pupils, a small nose, and whiskers."""
    tip = rng.uniform(1.2, 1.6)
    for side in (-1, 1):
        on.polygon(at(side, -0.1, side * 0.8, -tip, side * 0.15, -0.7), mark, EDGE, 2)
    oval(on, 0, 0, 1.05, 0.9, coat)
    for side in (-1, 1):
        oval(on, side * 0.45, -0.12, 0.25, 0.2, eye)
        oval(on, side * 0.45, -0.12, 0.06, 0.18, DARK)
        oval(on, side * 0.2, 0.5, 0.25, 0.2, mark)
        for rise in (-0.15, 0, 0.15):
            on.line(at(side * 0.3, 0.45 + rise / 3, side * 1.4, 0.4 + rise * 2), EDGE, 2)
    on.polygon(at(-0.15, 0.3, 0.15, 0.3, 0, 0.47), rng.choice([PINK, DARK]), EDGE, 2)


def draw_dog(on, rng, coat, mark, eye):
    """Draw a dog's head: hanging ears, round pupils, and a long muzzle with a broad nose."""
    hang = rng.uniform(-0.2, 0.3)
    oval(on, 0, 0, 0.9, 1, coat)
    for side in (-1, 1):
        oval(on, side * 0.9, hang, 0.3, 0.75, mark)
        oval(on, side * 0.36, -0.25, 0.17, 0.18, eye)
        oval(on, side * 0.36, -0.25, 0.11, 0.12, DARK)
    oval(on, 0, 0.55, 0.5, 0.48, mark)
    oval(on, 0, 0.3, 0.27, 0.19, DARK)


def background(rng):
    """Return a wall with blurred things on it, and a floor, as an RGB image."""
    wide, high = rng.integers(200, 301, 2).tolist()
    wall, floor, *things = map(tuple, rng.integers(80, 210, (rng.integers(2, 30), 3)).tolist())
    picture = Image.new("RGB", (wide, high), wall)
    on = ImageDraw.Draw(picture)
    for color in things:
        x, y, radius = rng.uniform((0, 0, 5), (wide, high, 40))
        on.ellipse([x - radius, y - radius, x + radius, y + radius], color)
    on.rectangle([0, high * rng.uniform(0.55, 0.9), wide, high], floor)
    return picture.filter(ImageFilter.BoxBlur(rng.uniform(1, 6)))
