"""Steps 38 to 40: how true a network's percentages are, and which of two networks is better."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve

from helpers.charts import show


def plot_reliability(right, sure):
    """Draw how often a network is right over how sure it is, in steps of 10%, and show the chart.

    Each point has Wilson's 95% interval; below it stands how many photos it is made of. For each
    photo, `right` says whether the answer was right, and `sure` how sure it was, from 0 to 1.
    """
    often, mean = calibration_curve(right, sure, n_bins=10)
    steps = np.searchsorted(np.linspace(0, 1, 11)[1:-1], sure)
    steps, counts = np.unique(steps, return_counts=True)
    bounds = [_interval(y * n, n) for y, n in zip(often, counts, strict=True)]
    _, axis = plt.subplots(figsize=(5.5, 4.5), layout="constrained")
    axis.plot([0, 1], [0, 1], color="gray", linestyle="--", label="as sure as it should be")
    errors = np.abs(np.transpose(bounds) - often)
    axis.errorbar(mean, often, errors, fmt="bo", capsize=3, label="the network, 95% interval")
    ticks = [f"{s}0–{s + 1}0%\n{n:,} photos" for s, n in zip(steps, counts, strict=True)]
    axis.set_xticks(steps / 10 + 0.05, ticks, fontsize=8)
    axis.yaxis.set_major_formatter("{x:.0%}")
    axis.set(xlabel="how sure it is", ylabel="how often it is right", xlim=(steps[0] / 10, 1.01))
    axis.set_ylim(min(steps[0] / 10, np.min(bounds)) - 0.02, 1.02)
    axis.legend(loc="lower right")
    points = [f"{x:.0%} sure, {y:.0%} right" for x, y in zip(mean, often, strict=True)]
    show(f"Reliability diagram of {len(sure):,} photos: {'; '.join(points)}.")


def compare(networks):
    """Return a table of networks that answered the same photos, each beside the first one.

    `networks` is a dict of name: (`keras.Model`, seconds of training, for each photo whether its
    answer was right). Of the photos that only one of two networks gets right, "luck" in the
    DataFrame is how likely a coin shares them out as unevenly (McNemar's test, 1947, exact).
    """
    rows = {}
    for name, (model, seconds, right) in networks.items():
        right = np.asarray(right, bool)
        low, high = _interval(right.sum(), len(right))
        rows[name] = {
            "parameters": f"{model.count_params():,}",
            "minutes": f"{seconds / 60:.1f}",
            "right (95% interval)": f"{right.mean():.1%} ({low:.1%} to {high:.1%})",
        }
        if len(rows) == 1:
            first = right
            continue
        won, lost = int((right & ~first).sum()), int((first & ~right).sum())
        luck = binomtest(won, won + lost).pvalue if won + lost else 1
        rows[name] |= {"only it is right": f"{won:,}", "only the first is right": f"{lost:,}"}
        rows[name]["luck"] = f"{luck:.1%}" if luck >= 0.001 else "less than 0.1%"
    return pd.DataFrame.from_dict(rows, orient="index").fillna("")


def _interval(right, total):
    return tuple(binomtest(round(right), int(total)).proportion_ci(method="wilson"))
