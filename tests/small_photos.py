"""What the tests of step 0 share: tiny photos, archives in each layout, and a folder's content."""

import io
import json
import zipfile
from pathlib import Path

from PIL import Image, ImageDraw


def picture(number=0, size=(48, 36), mode="RGB"):
    """Return a small picture, a different one for each number."""
    image = Image.new("RGB", size, ((number * 37) % 256, (number * 91) % 256, 120))
    ImageDraw.Draw(image).line((0, 0, *size), (250, (number * 53) % 256, 10), 5)
    return image.convert(mode)


def saved(image, form="JPEG", **options):
    """Return the bytes of a picture's file."""
    memory = io.BytesIO()
    image.save(memory, form, **options)
    return memory.getvalue()


def photo(number=0):
    """Return the bytes of a small JPEG, different ones (also in size) for each number."""
    return saved(picture(number)) + bytes(number)


def write(folder, files):
    """Write files, a dict of names and bytes, below a folder; return the folder."""
    for name, content in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Path(folder)


def zipped(files, compression=zipfile.ZIP_STORED):
    """Return the bytes of a zip archive of files, a dict of names and bytes."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return memory.getvalue()


def labeled(each=6):
    """Return Kaggle's train folder with so many cats and dogs."""
    cats = {f"train/cat.{n}.jpg": photo(n) for n in range(each)}
    return cats | {f"train/dog.{n}.jpg": photo(100 + n) for n in range(each)}


def unlabeled(count=4):
    """Return Kaggle's test1 folder with so many photos."""
    return {f"test1/{n}.jpg": photo(200 + n) for n in range(1, count + 1)}


def kaggle(each=6, count=4):
    """Return Kaggle's archive: two archives in one, and a table that nobody needs."""
    files = {"sampleSubmission.csv": b"id,label\n1,0\n"}
    files |= {"test1.zip": zipped(unlabeled(count)), "train.zip": zipped(labeled(each))}
    return zipped(files, zipfile.ZIP_DEFLATED)


def microsoft(each=20):
    """Return Microsoft's archive, with the file that Windows left in each folder."""
    files = {"readme[1].txt": b"read me"}
    for place, label in enumerate(("Cat", "Dog")):
        files |= {f"PetImages/{label}/{n}.jpg": photo(100 * place + n) for n in range(each)}
        files[f"PetImages/{label}/Thumbs.db"] = b"\xd0\xcf\x11\xe0 thumbnails"
    return zipped(files)


def google(each=20):
    """Return Google's archive: two parts with a folder for each kind, numbered through."""
    files = {"cats_and_dogs_filtered/vectorize.py": b"import os"}
    for place, label in enumerate(("cat", "dog")):
        for n in range(each):
            kind, number = ("train", n) if n < 2 * each // 3 else ("validation", 2000 + n)
            name = f"cats_and_dogs_filtered/{kind}/{label}s/{label}.{number}.jpg"
            files[name] = photo(100 * place + n)
    return zipped(files)


def content(folder):
    """Return what lies in a folder, hidden files as well: names and bytes, or where a link leads.

    Of the note of the check, only the faults count, as it holds times.
    """
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = path.readlink()
        elif path.name == "checked_photos.json":
            found[name] = json.loads(path.read_text(encoding="utf-8"))["faults"]
        else:
            found[name] = path.read_bytes() if path.is_file() else "folder"
    return found
