"""What pytest reports is counted; what is no report of pytest's is not."""

import subprocess
import sys

import pytest

from agentfarm.tools._junit import MAX_BYTES, Report, read_report

TESTS = """
import pytest

def test_passes(): pass
def test_fails():
    value = 2
    assert value == 3, "<!DOCTYPE> \\x1b & <b>"
def test_raises(): raise ValueError("no")
@pytest.mark.skip
def test_skipped(): pass
@pytest.mark.xfail
def test_expected(): assert False
@pytest.fixture
def broken(): raise OSError("gone")
def test_error(broken): pass
class TestGroup:
    @pytest.mark.parametrize("x", [1, 2])
    def test_each(self, x): pass
"""


def report_on(folder, source) -> Report | None:
    (folder / "test_it.py").write_text(source)
    subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:randomly"),
            *("-p", "no:cacheprovider", "--junitxml=r.xml", "-c", "/dev/null", "."),
        ],
        cwd=folder,
        capture_output=True,
        check=False,
        timeout=60,
    )
    return read_report((folder / "r.xml").read_bytes())


def test_a_real_report_is_counted(tmp_path):
    report = report_on(tmp_path, TESTS)
    counted = (report.passed, report.failed, report.errors, report.skipped)
    assert counted == (3, 2, 1, 2)
    messages = {each["name"]: each["message"] for each in report.failures}
    assert list(messages) == [
        "test_it::test_fails",
        "test_it::test_raises",
        "test_it::test_error",
    ]
    assert "assert 2 == 3" in messages["test_it::test_fails"]
    assert "<!DOCTYPE> " in messages["test_it::test_fails"]
    assert messages["test_it::test_raises"] == "ValueError: no"
    assert messages["test_it::test_error"] == "OSError: gone"
    places = [(each["file"], each["line"]) for each in report.failures]
    assert places == [("test_it.py", 7), ("test_it.py", 8), ("test_it.py", 14)]


def test_a_file_that_cannot_be_imported_is_an_error(tmp_path):
    report = report_on(tmp_path, "import no_such_module")
    assert (report.passed, report.errors) == (0, 1)
    assert "no_such_module" in report.failures[0]["message"]


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE t [<!ENTITY a "aaaaaaaaaa">'
    '<!ENTITY b "&a;&a;&a;">]><testsuites><testcase name="&b;"/></testsuites>'
)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no xml",
        b"<testsuites>",
        b"\xff\xfe",
        BOMB.encode(),
        BOMB.encode("utf-16"),
        BOMB.encode("utf-8-sig"),
        b"<testsuites><testcase/></testsuites>" + b" " * MAX_BYTES,
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><testsuites/>',
    ],
    ids=range(9),
)
def test_what_is_no_report_counts_for_nothing(content):
    assert read_report(content) is None


def test_deep_nesting_and_many_failures_stay_small():
    deep = b"<a>" * 100_000 + b"</a>" * 100_000
    failing = b'<testcase name="x"><failure message="%s"/></testcase>' % (b"m" * 2000)
    report = read_report(b"<t>" + deep + failing * 200 + b"</t>")
    assert report.failed == 200
    assert len(report.failures) == 50
    assert {len(each["message"]) for each in report.failures} == {500}
