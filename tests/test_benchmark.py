"""The page of measurements is in order."""

import re
import shlex

from run_notebook import ROOT
from trials import read_arguments

PAGE = (ROOT / "tests" / "benchmark.md").read_text(encoding="utf-8")


def test_tables_commands_and_length_of_the_page():
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.M):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
        assert re.match(r"\|.*\n\|(---\|)+\n", table), table
    for command in re.findall(r"python tests/trials.py (.*?)[`\n]", PAGE):
        read_arguments(shlex.split(command, comments=True))
    assert sum(any(map(str.isalnum, word)) for word in PAGE.split()) <= 1_100
