"""Step 4: settings that may also come from outside, from environment variables of the same name."""

import os
from pathlib import Path

ON = ["1", "true", "yes", "on"]
OFF = ["0", "false", "no", "off"]


def setting(name, default):
    """Return the value of the environment variable `name`, or `default` where it is not set.

    Args:
        name: such as "EPOCHS".
        default: a whole number, a fraction, True or False, a text or a `pathlib.Path`. What comes
            from outside must be of the same kind; numbers must be above 0, but for SEED, which
            may be 0, and a switch takes a word of `ON` or `OFF`.

    Raises:
        ValueError: when it is not; the message says what was found and what is wanted.
    """
    text = os.environ.get(name)
    if text is None:
        return default
    if isinstance(default, str):
        return text
    if isinstance(default, Path):
        return Path(text).expanduser()
    if isinstance(default, bool):
        if text.strip().lower() in [*ON, *OFF]:
            return text.strip().lower() in ON
        raise ValueError(
            f"The environment variable {name} is {text!r}; it is a switch and takes 1 or 0."
        )
    lowest = 0 if name == "SEED" else 1 if isinstance(default, int) else 1e-9
    try:
        value = type(default)(text)
    except ValueError:
        value = None
    if value is None or not lowest <= value < float("inf"):
        kind = "whole number" if isinstance(default, int) else "number"
        bound = "of at least 1" if lowest == 1 else "of at least 0" if name == "SEED" else "above 0"
        raise ValueError(
            f"The environment variable {name} is {text!r}; it takes a {kind} {bound}, such as "
            f"{default}."
        )
    return value
