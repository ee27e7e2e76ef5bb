"""Steps 24 and 39: the log of a training, a CSV table with one row per finished epoch."""

from datetime import datetime, timedelta

import pandas as pd

COLUMNS = ["epoch", "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "seconds"]
COLUMNS += ["precision", "finished"]


def read_log(path):
    """Return a training log, a DataFrame without rows where there is no file.

    Raises:
        ValueError: when the file is not as it was written.
    """
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    try:
        log = pd.read_csv(path, encoding="utf-8")
        missing = [name for name in COLUMNS if name not in log]
        if missing:
            raise ValueError(f"it has no column {missing[0]!r}, or no commas between columns")
        for name in COLUMNS[:-2]:
            log[name] = log[name].astype(float if name != "epoch" else int)
        if log["epoch"].tolist() != list(range(1, len(log) + 1)):
            raise ValueError("its epochs are not 1, 2, 3, ...")
        log["finished"].map(datetime.fromisoformat)
    except (ValueError, TypeError) as problem:
        raise ValueError(
            f"{path} is not as it was written ({problem}); perhaps a spreadsheet saved it. Nothing "
            f"was changed: put the log back, or rename {path.parent} to train anew."
        ) from None
    return log


def began(log):
    """Return when the first epoch of a log began, such as "2026-11-26 09:00:00"."""
    first = log.iloc[0]
    start = datetime.fromisoformat(first["finished"]) - timedelta(seconds=first["seconds"])
    return start.isoformat(sep=" ", timespec="seconds")
