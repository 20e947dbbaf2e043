import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

WORK = Path.cwd()


class App:
    """The program, run in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder

    def run(self, *arguments):
        return subprocess.run(
            [sys.executable, str(WORK / "todo.py"), *arguments],
            cwd=self.folder,
            capture_output=True,
            encoding="utf-8",
            timeout=10,
        )

    def __call__(self, *arguments):
        """The output of a command that succeeds."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout.splitlines()

    def refuses(self, *arguments):
        """The message of a command that fails."""
        done = self.run(*arguments)
        assert done.returncode != 0, arguments
        assert done.stdout == "", arguments
        assert done.stderr.strip(), arguments
        return done.stderr


def own_tests(folder):
    """Run the answer's tests in a folder; how many passed, and how many did not."""
    report = folder / "hidden-report.xml"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "test_todo.py", f"--junitxml={report}"],
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


def test_add_and_list(tmp_path):
    app = App(tmp_path)
    assert app("list") == ["Nothing to do"]
    assert app("add", "Buy milk") == ["Added 1: Buy milk"]
    assert app("add", "  Call Åsa 📞 ") == ["Added 2: Call Åsa 📞"]
    assert app("list") == ["1 [ ] Buy milk", "2 [ ] Call Åsa 📞"]


def test_done_marks(tmp_path):
    app = App(tmp_path)
    app("add", "Buy milk")
    app("add", "Call Åsa")
    assert app("done", "2") == ["Done 2: Call Åsa"]
    assert app("done", "2") == ["Done 2: Call Åsa"]
    assert app("list") == ["1 [ ] Buy milk", "2 [x] Call Åsa"]


def test_list_open(tmp_path):
    app = App(tmp_path)
    app("add", "One")
    app("add", "Two")
    app("done", "1")
    assert app("list", "--open") == ["2 [ ] Two"]
    app("done", "2")
    assert app("list", "--open") == ["Nothing to do"]


def test_remove_and_ids(tmp_path):
    app = App(tmp_path)
    app("add", "One")
    app("add", "Two")
    assert app("remove", "2") == ["Removed 2: Two"]
    assert app("add", "Three") == ["Added 3: Three"]
    assert app("list") == ["1 [ ] One", "3 [ ] Three"]
    app("remove", "3")
    app("remove", "1")
    assert app("list") == ["Nothing to do"]
    assert app("add", "Four") == ["Added 4: Four"]


def test_the_file_can_be_chosen(tmp_path):
    app = App(tmp_path)
    other = str(tmp_path / "other file.json")
    assert app("--file", other, "add", "Elsewhere") == ["Added 1: Elsewhere"]
    assert app("list") == ["Nothing to do"]
    assert app("add", "Here") == ["Added 1: Here"]
    assert app("--file", other, "list") == ["1 [ ] Elsewhere"]
    assert (tmp_path / "todo.json").is_file()
    assert (tmp_path / "other file.json").is_file()


def test_unknown_ids_are_refused(tmp_path):
    app = App(tmp_path)
    app("add", "One")
    for command in ("done", "remove"):
        assert "No task 7" in app.refuses(command, "7")
        app.refuses(command, "one")
    assert app("list") == ["1 [ ] One"]


def test_empty_texts_and_unknown_commands_are_refused(tmp_path):
    app = App(tmp_path)
    for arguments in (("add", ""), ("add", "   "), ("fly",), ()):
        app.refuses(*arguments)
    assert app("add", "One") == ["Added 1: One"]


def test_a_broken_file_is_kept(tmp_path):
    app = App(tmp_path)
    assert app("add", "One") == ["Added 1: One"]
    file = tmp_path / "todo.json"
    file.write_text("{broken", encoding="utf-8")
    app.refuses("add", "Two")
    assert file.read_text(encoding="utf-8") == "{broken"


def test_its_own_tests_pass(tmp_path):
    for name in ("todo.py", "test_todo.py"):
        shutil.copy(WORK / name, tmp_path)
    passed, failed = own_tests(tmp_path)
    assert passed >= 4
    assert failed == 0


def test_its_own_tests_find_a_program_that_does_nothing(tmp_path):
    shutil.copy(WORK / "test_todo.py", tmp_path)
    (tmp_path / "todo.py").write_text("", encoding="utf-8")
    _, failed = own_tests(tmp_path)
    assert failed > 0
