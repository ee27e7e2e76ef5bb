"""The measuring scripts still fit the notebook that they measure, and their page is in order."""

import re
import shlex
import subprocess
import sys

import pytest
from run_notebook import ROOT
from small_photos import labeled, unlabeled, write
from trials import read_arguments

PAGE = (ROOT / "tests" / "benchmark.md").read_text(encoding="utf-8")
SMALL = "--photos 30 --others 10 --batch-size 8 --epochs 3"


@pytest.mark.trains
@pytest.mark.once
@pytest.mark.parametrize(
    "command, rows",
    [
        ("benchmark.py . --photos 40 --rounds 1", ["2019, float32", "step 24, float32"]),
        (f"trials.py . 'step 24' {SMALL}", ["step 24"]),
        (f"trials.py . 'residual, small photos first' {SMALL}", ["residual, small photos first"]),
    ],
)
def test_a_script_prints_its_rows(tmp_path, command, rows):
    write(tmp_path, labeled(each=25) | unlabeled())
    command = [sys.executable, *shlex.split(f"'{ROOT}'/tests/{command}")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert all(f"| {row} |" in done.stdout for row in rows), done.stderr


def test_tables_commands_and_length_of_the_page():
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.M):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
        assert re.match(r"\|.*\n\|(---\|)+\n", table), table
    for command in re.findall(r"python tests/trials.py (.*?)[`\n]", PAGE):
        read_arguments(shlex.split(command, comments=True))
    assert sum(any(map(str.isalnum, word)) for word in PAGE.split()) <= 1_100
