"""A workspace as a ZIP: all of its files, none of anybody else's."""

import base64
import io
import re
import zipfile

from agentfarm.notebook.panels import _download, download


def unpacked(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def test_it_holds_the_files_and_follows_no_link(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    work = tmp_path / "work"
    (work / "package" / "__pycache__").mkdir(parents=True)
    (work / "package" / "a.py").write_bytes(b"a = 1\r\n")
    (work / "package" / "__pycache__" / "a.pyc").write_bytes(b"cache")
    (work / "å.txt").write_text("ö")
    (work / "link").symlink_to(secret)
    made = download(work)
    assert made.name == "work.zip"
    assert made.files == ("package/a.py", "å.txt")
    assert unpacked(made.content) == {
        "package/a.py": b"a = 1\r\n",
        "å.txt": "ö".encode(),
    }


def test_the_same_files_make_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.sh").write_text("true")
        (tmp_path / name / "a.sh").chmod(0o755)
    one, two = (download(tmp_path / name, name="x.zip") for name in ("one", "two"))
    assert one.content == two.content
    with zipfile.ZipFile(io.BytesIO(one.content)) as archive:
        assert archive.infolist()[0].external_attr >> 16 == 0o755


def test_its_link_carries_the_zip(tmp_path):
    (tmp_path / "a.py").write_text("a = 1")
    made = download(tmp_path, name='"><b>.zip')
    page = made._repr_html_()
    data = re.search(r'href="data:application/zip;base64,([^"]+)"', page)[1]
    assert unpacked(base64.b64decode(data)) == {"a.py": b"a = 1"}
    assert "<b>" not in page


def test_what_is_too_big_for_a_link_can_be_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(_download, "MAX_LINK_BYTES", 10)
    (tmp_path / "a.py").write_text("a = 1")
    made = download(tmp_path, name="x.zip")
    assert "base64" not in made._repr_html_()
    path = made.save(tmp_path / "new")
    assert unpacked(path.read_bytes()) == {"a.py": b"a = 1"}


def test_an_empty_workspace_says_so(tmp_path):
    assert "no files" in download(tmp_path / "not there")._repr_html_()
