"""Tests of textstats."""

import json
import subprocess
import sys

from textstats import frequencies, sentences, summary, words


def test_words_keep_apostrophes_and_hyphens():
    assert words("Don't re-read ÅRE!") == ["don't", "re-read", "åre"]


def test_sentences_end_before_white_space():
    assert sentences("It is 3.5. Really?! Yes") == ["It is 3.5.", "Really?!", "Yes"]


def test_frequencies_are_sorted():
    assert frequencies("b a B c", limit=2) == [("b", 2), ("a", 1)]


def test_summary_counts():
    assert summary("One two.")["words"] == 2


def test_the_command_prints_the_summary(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("One two. Three!", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "textstats", str(file)], capture_output=True, text=True
    )
    assert json.loads(done.stdout) == summary("One two. Three!")
