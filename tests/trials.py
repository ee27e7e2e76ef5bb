"""Train a recipe on some of the labeled photos, and score it on 3,000 others.

    python tests/trials.py FOLDER 24 --seed 1
    python tests/trials.py FOLDER 39 --replace "(96, 96)" "(80, 80)"

FOLDER holds `train` and `test1`, or an archive of them. A recipe is what the notebook's own cells
say, up to step 24 or 39, with pieces of them replaced. The seed decides which photos are drawn, and
all that training draws; a fifth of the photos validates. The last line is a row for `benchmark.md`.
"""

import argparse
import dataclasses
import shlex
import sys
import tempfile
import warnings

import numpy as np
import pandas as pd
from benchmark import run_cells  # which also lets helpers be found
from helpers.photos import get_photos
from helpers.speed import faster
from helpers.training import ResumeTraining


def read_arguments(arguments=None):
    """Return the options of a command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="where train and test1 lie")
    parser.add_argument("step", choices=["24", "39"], help="whose network and recipe")
    parser.add_argument("--photos", type=int, default=2700, help="to train and validate with")
    parser.add_argument("--others", type=int, default=3000, help="to score it on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=50, help="EPOCHS of step 4")
    parser.add_argument("--replace", nargs=2, action="append", default=[], help="a piece of a cell")
    return parser.parse_args(arguments)


def draw(names, count, others, seed):
    """Return so many names of photos, and so many others; half of each are cats."""
    random, drawn, rest = np.random.default_rng(seed), [], []
    for kind in ["cat", "dog"]:
        mixed = random.permutation([name for name in names if name[:3].lower() == kind]).tolist()
        rest += mixed[: others // 2]
        drawn += mixed[others // 2 :][: count // 2]
    if len(drawn) < count // 2 * 2:
        raise ValueError(f"There are {len(names):,} photos, too few for {count:,} and {others:,}.")
    return drawn, rest


def main():
    """Train, score, and print a row."""
    options = read_arguments()
    warnings.filterwarnings("ignore")
    photos = get_photos(options.folder)
    drawn, others = draw(photos.train_files, options.photos, options.others, options.seed)
    names = {"photos": dataclasses.replace(photos, train_files=drawn)}
    run_cells(names, "step-03-imports", "step-04-settings", options.replace)
    names |= {"EPOCHS": options.epochs, "SEED": options.seed}
    run_cells(names, "step-05-table", "step-05-table")
    run_cells(names, "step-09-network", "step-09-compile", options.replace)
    run_cells(names, "step-11-callbacks", "step-16-split", options.replace)
    run_cells(names, "step-20-augmentation", "step-20-generator", options.replace)
    run_cells(names, "step-21-validation", "step-21-validation")
    model, callbacks, train = names["model"], names["callbacks"], names["train_generator"]
    every = 1  # epochs, a look at the validation photos
    if options.step == "39":
        run_cells(
            names, "step-39-network", "step-39-fit", options.replace, until="residual_history ="
        )
        model, callbacks, train = names["residual"], [], names["residual_generator"]
        every = 5
    validation = names["validation_generator"]
    with tempfile.TemporaryDirectory() as folder:
        resuming = ResumeTraining(model, [train, validation], callbacks, folder)
        given = {"validation_data": validation, "validation_freq": every, "callbacks": [resuming]}
        faster(model).fit(train, epochs=options.epochs, **given, shuffle=False, verbose=0)

    table = pd.DataFrame({"filename": others, "label": [name[:3].lower() for name in others]})
    scored = names["PhotoGenerator"](table, photos.train_folder, y_col="label", batch_size=128)
    scores = [f"{model.evaluate(each, verbose=0)[1]:.3f}" for each in (validation, scored)]
    minutes = sum(row["seconds"] for row in resuming.log) / 60
    row = [options.step, f"{options.photos:,}", str(options.seed), f"{minutes:.1f}", *scores]
    command = shlex.join(["python", "tests/trials.py", "FOLDER", *sys.argv[2:]])
    print(f"| {' | '.join(row)} | `{command}` |")


if __name__ == "__main__":
    main()
