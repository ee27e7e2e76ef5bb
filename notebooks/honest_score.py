"""Step 35: how far a share of right answers can be trusted, and whether probabilities are true."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from pictures import show


def wilson_interval(right, total, z=1.96):
    """Return the bounds between which the true share lies, 95% of the time.

    After Wilson, "Probable inference, the law of succession, and statistical inference" (1927).

    Args:
        right: how many answers are right.
        total: how many there are; more than 0.
        z: how many standard deviations wide each side is; 1.96 stands for 95%.

    Returns:
        Two numbers from 0 to 1.
    """
    share = right / total
    middle = share + z**2 / (2 * total)
    half = z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return float((middle - half) / (1 + z**2 / total)), float((middle + half) / (1 + z**2 / total))


def say_score(what, answers, labels):
    """Print the share of right labels, with its 95% interval; `what` names the photos."""
    right, total = int((np.asarray(answers) == np.asarray(labels)).sum()), len(answers)
    low, high = wilson_interval(right, total)
    share = right / total
    print(f"{what}: {share:.1%} of {total:,} right (95% interval: {low:.1%} to {high:.1%})")


def reliability(answers, probabilities, bins=10):
    """Return a table of how sure a network is, and how often it is right then.

    Args:
        answers: the right class of each photo, numbers from 0.
        probabilities: the network's answers, shape (photos, 2).
        bins: into how many steps from 50% to 100% the photos are sorted.

    Returns:
        A pandas DataFrame with the columns `sure` and `right`, means from 0 to 1, and `photos`,
        a row for each step that has photos.
    """
    probabilities = np.asarray(probabilities)
    sure = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == np.asarray(answers)
    step = np.minimum((sure - 0.5) * 2 * bins, bins - 1).astype(int)
    table = pd.DataFrame({"step": step, "sure": sure, "right": right, "photos": 1})
    return table.groupby("step").agg({"sure": "mean", "right": "mean", "photos": "sum"})


def calibration_error(table):
    """Return the expected calibration error of a table of `reliability`, from 0 (best) to 1.

    It is the mean distance of `sure` and `right`, each step weighed by its photos; after Guo et
    al., "On calibration of modern neural networks" (2017).
    """
    distance = (table["sure"] - table["right"]).abs()
    return float((distance * table["photos"]).sum() / table["photos"].sum())


def plot_reliability(answers, probabilities):
    """Draw how often the network is right over how sure it is; see `reliability`."""
    table = reliability(answers, probabilities)
    error = calibration_error(table)
    _, axis = plt.subplots(figsize=(5, 5), layout="constrained")
    axis.plot([0.5, 1], [0.5, 1], color="gray", linestyle="--", label="as sure as it should be")
    axis.plot(table["sure"], table["right"], "o-", label="the network")
    for row in table.itertuples():
        axis.annotate(
            f"{row.photos:,}", (row.sure, row.right), (6, -12), textcoords="offset points"
        )
    axis.set(xlabel="how sure it is", ylabel="how often it is right")
    axis.set_title(f"Expected calibration error: {error:.1%}")
    axis.legend()
    points = ", ".join(f"{row.sure:.0%} sure: {row.right:.0%} right" for row in table.itertuples())
    show(f"Reliability diagram; {points}.")
