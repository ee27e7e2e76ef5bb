"""Both READMEs say the same: headings, commands, tables and figures. What was tested is named."""

import re

import pytest
from run_notebook import ROOT

ENGLISH, KOREAN = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ko.md")
)


def commands(text):
    """Return what stands in code blocks and, as code, within the text."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)
    return blocks, sorted(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S)))


def figures(text):
    """Return the numbers of a text, section by section, but for those in code."""
    text = re.sub(r"```.*?```|`[^`\n]+`|\]\([^)]*\)", "", text, flags=re.DOTALL)
    return [sorted(re.findall(r"\d[\d,.]*\d|\d", part)) for part in text.split("\n## ")]


def test_each_links_to_the_other():
    assert "(README.ko.md)" in ENGLISH and "(README.md)" in KOREAN


def test_headings_and_tables_correspond():
    for pattern in [r"^#+ ", r"^- \*\*", r"^\|", r"^!\["]:
        english, korean = (len(re.findall(pattern, t, flags=re.M)) for t in (ENGLISH, KOREAN))
        assert english == korean, pattern


def test_commands_are_the_same():
    assert commands(ENGLISH) == commands(KOREAN)


def test_figures_are_the_same():
    for english, korean in zip(figures(ENGLISH), figures(KOREAN), strict=True):
        assert english == korean


@pytest.mark.parametrize("text", [ENGLISH, KOREAN], ids=["English", "Korean"])
def test_what_is_linked_is_there(text):
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_the_ranges_of_versions_end_right_above_what_was_tested():
    ranges = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    pinned = (ROOT / "tests" / "constraints.txt").read_text(encoding="utf-8")
    tested = dict(re.findall(r"^([\w-]+)==(\d+\.\d+)", pinned, flags=re.M))
    found = re.findall(r"^([\w-]+)>=(\d+)\.(\d+),<(\d+\.\d+)$", ranges, flags=re.M)
    assert len(found) == 8
    for package, major, minor, end in found:
        assert tested[package] == f"{major}.{minor}" and end == f"{major}.{int(minor) + 1}"
