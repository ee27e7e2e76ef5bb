"""Pack a seeded sample of Kaggle's photos the way Google packs its 3,000.

    python tests/sample_photos.py train.zip FOLDER

FOLDER then holds `cats_and_dogs_filtered.zip` with 1,000 + 500 cats and as many dogs, for step 0
to unpack. The README's figures for 3,000 photos come from such a sample.
"""

import random
import sys
import zipfile
from pathlib import Path

TRAIN, VALIDATION, SEED = 1000, 500, 42


def pack(train_zip, folder):
    """Write the sample; return the path of the archive.

    Raises:
        ValueError: when `train_zip` holds too few photos of a kind.
    """
    archive = Path(folder, "cats_and_dogs_filtered.zip")
    archive.parent.mkdir(parents=True, exist_ok=True)
    chance = random.Random(SEED)
    with zipfile.ZipFile(train_zip) as source, zipfile.ZipFile(archive, "w") as target:
        names = sorted(name for name in source.namelist() if name.endswith(".jpg"))
        for kind in ["cat", "dog"]:
            of_kind = [name for name in names if Path(name).name.startswith(kind)]
            for place, name in enumerate(chance.sample(of_kind, TRAIN + VALIDATION)):
                half, number = ("train", place) if place < TRAIN else ("validation", 1000 + place)
                packed = f"cats_and_dogs_filtered/{half}/{kind}s/{kind}.{number}.jpg"
                target.writestr(packed, source.read(name))
    return archive


if __name__ == "__main__":
    print(pack(*sys.argv[1:3]))
