"""Settings from outside are of the right kind, or refused with a sentence that says why."""

from pathlib import Path

import pytest
from settings import setting

DEFAULTS = {"EPOCHS": 50, "BATCH_SIZE": 16, "SEED": 42, "LEARNING_RATE": 0.001}
DEFAULTS |= {"PRECISION": "auto", "OUTPUT_FOLDER": Path("../outputs"), "LONG_STEPS": False}


@pytest.mark.parametrize("name", DEFAULTS)
def test_without_a_variable_the_default_counts(monkeypatch, name):
    monkeypatch.delenv(name, raising=False)
    assert setting(name, DEFAULTS[name]) is DEFAULTS[name]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("EPOCHS", "3", 3),
        ("BATCH_SIZE", "1", 1),
        ("SEED", "0", 0),
        ("LEARNING_RATE", "1e-5", 0.00001),
        ("LEARNING_RATE", "1", 1.0),
        ("PRECISION", "float32", "float32"),
        ("OUTPUT_FOLDER", "some/where", Path("some/where")),
        ("OUTPUT_FOLDER", "~/x", Path.home() / "x"),
        *[("LONG_STEPS", text, True) for text in ["1", "true", "True", "yes", "ON", " 1 "]],
        *[("LONG_STEPS", text, False) for text in ["0", "false", "False", "no", "off"]],
    ],
)
def test_a_variable_is_read_as_what_the_default_is(monkeypatch, name, text, value):
    monkeypatch.setenv(name, text)
    found = setting(name, DEFAULTS[name])
    assert found == value
    assert isinstance(found, type(DEFAULTS[name]))


@pytest.mark.parametrize(
    ("name", "texts", "wanted"),
    [
        ("EPOCHS", ["0", "-1", "", "many", "2.5"], "a whole number of at least 1, such as 50."),
        ("BATCH_SIZE", ["0", "-4"], "a whole number of at least 1, such as 16."),
        ("SEED", ["words", "-1", ""], "a whole number of at least 0, such as 42."),
        (
            "LEARNING_RATE",
            ["0", "-0.1", "nan", "inf", "fast", ""],
            "a number above 0, such as 0.001.",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(monkeypatch, name, texts, wanted):
    for text in texts:
        monkeypatch.setenv(name, text)
        with pytest.raises(ValueError) as raised:
            setting(name, DEFAULTS[name])
        expected = f"The environment variable {name} is {text!r}; it takes {wanted}"
        assert str(raised.value) == expected
        assert raised.value.__cause__ is None and raised.value.__context__ is None


@pytest.mark.parametrize("default", [False, True])
@pytest.mark.parametrize("text", ["", "2", "-1", "perhaps"])
def test_a_switch_is_on_or_off(monkeypatch, default, text):
    monkeypatch.setenv("LONG_STEPS", text)
    with pytest.raises(ValueError) as raised:
        setting("LONG_STEPS", default)
    sentence = f"The environment variable LONG_STEPS is {text!r}; it is a switch and takes 1 or 0."
    assert str(raised.value) == sentence
