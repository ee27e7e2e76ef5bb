"""The pages: both languages say the same, what they name is there, CI runs the README's command."""

import re

import pytest
from run_notebook import ROOT

NAMES = ["README.md", "README.ko.md", "notebooks/README.md", "data/README.md", "tests/README.md"]
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
ENGLISH, KOREAN = PAGES["README.md"], PAGES["README.ko.md"]
PLACES = ["", "notebooks", "notebooks/helpers", "data", "tests"]  # where a named file may lie
HELPERS = {path.name for path in (ROOT / "notebooks" / "helpers").glob("[!_]*.py")}


def commands(text):
    """Return what stands in code blocks and, as code, within the text."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)
    return blocks, sorted(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S)))


def figures(text):
    """Return the numbers of a text, section by section, but for those in code."""
    text = re.sub(r"```.*?```|`[^`\n]+`|\]\([^)]*\)", "", text, flags=re.DOTALL)
    return [sorted(re.findall(r"\d[\d,.]*\d|\d", part)) for part in text.split("\n## ")]


def test_both_languages_say_the_same():
    assert "(README.ko.md)" in ENGLISH and "(README.md)" in KOREAN
    for pattern in [r"^#+ ", r"^- \*\*", r"^\|", r"^!\["]:
        english, korean = (len(re.findall(pattern, t, flags=re.M)) for t in (ENGLISH, KOREAN))
        assert english == korean, pattern
    assert commands(ENGLISH) == commands(KOREAN)
    assert figures(ENGLISH) == figures(KOREAN)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_page_names_is_there(name):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", PAGES[name]):
        assert target.startswith("http") or (ROOT / name).parent.joinpath(target).exists(), target
    for file in re.findall(r"`((?:[\w-]+/)*[\w-]+\.(?:py|md|ipynb))`", PAGES[name]):
        assert any((ROOT / place / file).exists() for place in PLACES), file
    assert "RESULT-" not in PAGES[name] and "TODO" not in PAGES[name], "a figure is missing"


def test_every_helper_is_in_the_table():
    rows = re.findall(r"^\| `(\w+\.py)` \| [\d, to]+ \|", PAGES["notebooks/README.md"], re.M)
    assert sorted(rows) == sorted(HELPERS)


def test_ci_runs_the_test_command_of_the_readme():
    (command,) = [line for line in ENGLISH.splitlines() if line.endswith("/bin/python -m pytest")]
    assert command.startswith("python3 -m venv") and "-c tests/constraints.txt" in command
    assert "grep -m 1 'python -m pytest$' README.md" in (ROOT / ".ci" / "run").read_text("utf-8")
