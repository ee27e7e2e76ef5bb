"""Resolve the requirements to wheels, without installing anything, and print the README's table.

    python tests/resolve.py

For each platform and Python, `uv` looks for the newest wheels that requirements.txt allows, on
the package index that it is set to (PyPI by default), and says how many there are; "none" stands
for a package without a wheel or an index out of reach; the reason is printed below. The exit
status is 1 where a platform that the README promises has none.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ["3.11", "3.12", "3.13"]
PLATFORMS = {  # name: (uv's name, oldest macOS, whether the README promises it)
    "Windows, x86-64": ("x86_64-pc-windows-msvc", "", True),
    "Linux, x86-64": ("x86_64-unknown-linux-gnu", "", True),
    "Linux, ARM": ("aarch64-unknown-linux-gnu", "", True),
    "macOS 12, Apple silicon": ("aarch64-apple-darwin", "12.0", True),
    "macOS 11, Apple silicon": ("aarch64-apple-darwin", "11.0", False),
    "macOS 12, Intel": ("x86_64-apple-darwin", "12.0", False),
}


def resolve(platform, python, macos=""):
    """Return how many wheels are needed, and what `uv` says where that cannot be found out."""
    command = [find_uv_bin(), "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
    command += ["--only-binary", ":all:", "--python-platform", platform]
    command += ["--python-version", python, ROOT / "requirements.txt"]
    environment = os.environ | ({"MACOSX_DEPLOYMENT_TARGET": macos} if macos else {})
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        return 0, " ".join(done.stderr.split())
    return len(re.findall(r"^\w[\w.-]*==", done.stdout, flags=re.MULTILINE)), ""


def main():
    """Print the table, and the reasons for what is missing; return the exit status."""
    reasons, promised = [], True
    print(f"| wheels to install | {' | '.join(f'Python {version}' for version in PYTHONS)} |")
    print(f"|---{'|---' * len(PYTHONS)}|")
    for name, (platform, macos, is_promised) in PLATFORMS.items():
        found = [resolve(platform, version, macos) for version in PYTHONS]
        print(f"| {name} | {' | '.join(str(count or 'none') for count, _ in found)} |", flush=True)
        for version, (_, reason) in zip(PYTHONS, found, strict=True):
            reasons += [f"{name}, Python {version}: {reason}"] if reason else []
        promised &= not is_promised or all(count for count, _ in found)
    print(*reasons, sep="\n")
    return 0 if promised else 1


if __name__ == "__main__":
    sys.exit(main())
