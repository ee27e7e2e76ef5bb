"""Steps 24 and 39: a short name for all that decides what a training leads to."""

import hashlib
import inspect
import json
import re

import numpy as np

NAMES = ("name", "keras_history", "input_layers", "output_layers")  # where JSON has layers' names
PRECISION = ("dtype", "shared_object_id")  # what may differ between two runs of one training


def fingerprint(model, generators, callbacks):
    """Return a short name for all that decides what a training leads to.

    That is a compiled network, `PhotoGenerator`s, callbacks, and all their settings. Names that
    Keras numbers on from network to network do not count, nor does the precision.
    """
    try:
        network = without_names(json.loads(model.to_json()), {})
    except Exception as problem:  # what a reader's own layers raise can be anything
        raise ValueError(
            f"{type(problem).__name__}: Keras cannot describe this network, so its training cannot "
            "be found again. Give your own layers a get_config, or leave ResumeTraining out."
        ) from None
    compilation = without_names(json.loads(json.dumps(model.get_compile_config(), default=str)), {})
    photos = []
    for generator in generators:
        labels = None if generator.labels is None else generator.labels.tolist()
        pixels = hashlib.blake2b(np.ascontiguousarray(generator.pixels)).hexdigest()
        named = [generator.filenames, generator.class_indices, labels]
        photos.append([*named, generator.settings, pixels])
    settings = [settings_of(callback) for callback in callbacks]
    everything = json.dumps([network, compilation, photos, settings], default=str, sort_keys=True)
    everything = re.sub(" at 0x[0-9A-Fa-f]+", "", everything)  # where an object lies in memory
    return hashlib.sha256(everything.encode()).hexdigest()[:10]


def without_names(node, numbers, key=None):
    """Return a network's JSON with its names numbered in order, and without the precision."""
    if isinstance(node, dict):
        kept = {k: v for k, v in node.items() if k not in PRECISION}
        return {k: without_names(v, numbers, k) for k, v in kept.items()}
    if isinstance(node, list):
        return [without_names(v, numbers, key) for v in node]
    if isinstance(node, str) and key in NAMES:
        return numbers.setdefault(node, len(numbers))
    return node


def settings_of(callback):
    """Return a callback's kind and the values of its constructor's arguments, bases' included."""
    kinds, kept = type(callback).__mro__, vars(callback)
    names = {name for kind in kinds for name in inspect.signature(kind.__init__).parameters}
    values = {name: kept[key] for name in names for key in (name, f"_{name}") if key in kept}
    values.pop("verbose", None)
    if "min_delta" in values:  # Keras turns its sign
        values["min_delta"] = abs(values["min_delta"])
    values = {k: getattr(v, "__qualname__", v) if callable(v) else v for k, v in values.items()}
    return [type(callback).__name__, values]
