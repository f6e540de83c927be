"""The commands in docs/hpc.md: correct shell, and options that there are."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from gpudecon.cli import main

GUIDE = (Path(__file__).parents[1] / "docs" / "hpc.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
# in blocks, and in the text between backquotes
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
COMMANDS = LINES + re.findall(r"`(.*?)`", GUIDE)
VERBS = re.compile(r"gpudecon (run|submit|work|finish|doctor) ?(.*)")


@pytest.fixture(scope="module")
def options():
    """The options that each verb explains."""

    def said(verb: str) -> set[str]:
        with contextlib.redirect_stdout(io.StringIO()) as text, pytest.raises(SystemExit):
            main([verb, "--help"])
        return set(re.findall(r"--[a-z][\w-]*", text.getvalue()))

    return {verb: said(verb) for verb in ("run", "submit", "work", "finish", "doctor")}


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_blocks_are_correct_shell(block):
    if "..." not in block:
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_options_exist(options):
    found = [match.groups() for line in COMMANDS if (match := VERBS.search(line))]
    assert {verb for verb, _ in found} == {"run", "submit", "work", "finish"}
    assert len(found) > 12
    wrong = [
        (verb, word)
        for verb, words in found
        for word in shlex.split(words.replace("...", ""))
        if word.startswith("--") and word not in options[verb]
    ]
    assert wrong == []
