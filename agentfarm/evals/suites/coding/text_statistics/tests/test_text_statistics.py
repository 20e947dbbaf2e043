import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import textstats

WORK = Path.cwd()
TEXT = "The cat sat. The dog didn't! Was it 3.5 metres?\nNobody knows"
EMPTY = {
    "characters": 0,
    "words": 0,
    "unique_words": 0,
    "sentences": 0,
    "average_word_length": 0.0,
    "average_sentence_length": 0.0,
}
NOTHING = """
def words(*args, **kwargs):
    return None


sentences = frequencies = summary = words
"""


def plain(value):
    return json.loads(json.dumps(value))


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "textstats", *arguments],
        cwd=WORK,
        capture_output=True,
        encoding="utf-8",
        timeout=10,
    )


def own_tests(folder):
    """Run the answer's tests in a folder; how many passed, and how many did not."""
    report = folder / "hidden-report.xml"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests", f"--junitxml={report}"],
        cwd=folder,
        capture_output=True,
        timeout=60,
    )
    assert report.exists(), "pytest wrote no report"
    ended = [
        {child.tag for child in case} & {"failure", "error", "skipped"}
        for case in ElementTree.parse(report).iter("testcase")
    ]
    failed = sum(bool(tags - {"skipped"}) for tags in ended)
    return sum(not tags for tags in ended), failed


def test_words():
    assert plain(textstats.words("Don't re-read it -- ÅRE 42's!")) == [
        "don't",
        "re-read",
        "it",
        "åre",
        "42's",
    ]
    assert plain(textstats.words("snake_case, 'quoted' (well)…日本 x")) == [
        "snake",
        "case",
        "quoted",
        "well",
        "日本",
        "x",
    ]


def test_single_marks_only_join_words():
    assert plain(textstats.words("one--two o''clock -three four- '")) == [
        "one",
        "two",
        "o",
        "clock",
        "three",
        "four",
    ]


def test_sentences():
    assert plain(textstats.sentences(TEXT)) == [
        "The cat sat.",
        "The dog didn't!",
        "Was it 3.5 metres?",
        "Nobody knows",
    ]
    assert plain(textstats.sentences("  Really?!  Yes...\n\nGo. ")) == [
        "Really?!",
        "Yes...",
        "Go.",
    ]


def test_sentences_hold_letters_or_digits():
    assert plain(textstats.sentences("One. ... ! Two. --")) == ["One.", "Two."]


def test_frequencies():
    text = "b a c B a. A d"
    wanted = [["a", 3], ["b", 2], ["c", 1], ["d", 1]]
    assert plain(textstats.frequencies(text)) == wanted
    assert plain(textstats.frequencies(text, 2)) == wanted[:2]
    assert plain(textstats.frequencies(text, limit=9)) == wanted
    assert plain(textstats.frequencies(text, limit=0)) == []
    assert all(type(entry) is tuple for entry in textstats.frequencies(text))


def test_summary():
    assert plain(textstats.summary(TEXT)) == {
        "characters": len(TEXT),
        "words": 13,
        "unique_words": 12,
        "sentences": 4,
        "average_word_length": 3.46,
        "average_sentence_length": 3.25,
    }


def test_empty_texts():
    assert plain(textstats.words("")) == []
    assert plain(textstats.sentences(" \n")) == []
    assert plain(textstats.frequencies("")) == []
    assert plain(textstats.summary("")) == EMPTY
    assert plain(textstats.summary("...")) == {**EMPTY, "characters": 3}
    assert isinstance(textstats.summary("")["average_word_length"], float)


def test_the_command_prints_json(tmp_path):
    file = tmp_path / "text åäö.txt"
    file.write_text("Åsa läser. Bo sover!", encoding="utf-8")
    done = command(str(file))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "characters": 20,
        "words": 4,
        "unique_words": 4,
        "sentences": 2,
        "average_word_length": 3.75,
        "average_sentence_length": 2.0,
    }


def test_the_command_tells_of_a_missing_file(tmp_path):
    done = command(str(tmp_path / "none.txt"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.strip()


def test_its_own_tests_pass(tmp_path):
    shutil.copytree(WORK / "textstats", tmp_path / "textstats")
    shutil.copytree(WORK / "tests", tmp_path / "tests")
    assert (tmp_path / "tests" / "test_textstats.py").is_file()
    passed, failed = own_tests(tmp_path)
    assert passed >= 4
    assert failed == 0


def test_its_own_tests_find_functions_that_return_nothing(tmp_path):
    shutil.copytree(WORK / "tests", tmp_path / "tests")
    (tmp_path / "textstats").mkdir()
    (tmp_path / "textstats" / "__init__.py").write_text(NOTHING, encoding="utf-8")
    _, failed = own_tests(tmp_path)
    assert failed > 0
