"""A workspace as a ZIP file that a browser can save."""

from __future__ import annotations

import base64
import io
import zipfile
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from agentfarm.tools._workspace import take_snapshot

if TYPE_CHECKING:
    from pathlib import Path

# The link carries the content, and the notebook would be saved with all of it.
MAX_LINK_BYTES = 5 * 2**20
# ZIP knows no earlier time. The same files give the same bytes.
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Download:
    """Files as one ZIP; in a notebook, a link that saves it.

    Attributes:
        name: Of the file.
        content: The ZIP.
        files: Names in it, sorted.
    """

    name: str
    content: bytes = field(repr=False)
    files: tuple[str, ...]

    def save(self, folder: Path) -> Path:
        """Write it into a folder, over an earlier one of the same name.

        Raises:
            OSError: It cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.name
        path.write_bytes(self.content)
        return path

    def _repr_html_(self) -> str:
        size = f"{len(self.files)} files, {len(self.content) / 1024:.1f} KiB"
        if not self.files:
            return "<p>There are no files to download.</p>"
        if len(self.content) > MAX_LINK_BYTES:
            return (
                f"<p>{escape(self.name)} ({size}) is too big for a link. Write it to "
                "a folder: <code>download(…).save(Path('.'))</code></p>"
            )
        data = base64.b64encode(self.content).decode("ascii")
        return (
            f'<a download="{escape(self.name)}" '
            f'href="data:application/zip;base64,{data}">'
            f"Download {escape(self.name)}</a> ({size})"
        )


def download(folder: Path, *, name: str = "") -> Download:
    """Pack the regular files below a folder; links and caches stay out.

    Args:
        folder: A workspace, e.g. `WorkflowPanel.workspace`.
        name: Of the file; the folder's with ``.zip`` if empty.

    Raises:
        SandboxError: The files are too many or too big, or one cannot be read.
    """
    files = take_snapshot(folder).files
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, file in sorted(files.items()):
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.external_attr = (0o755 if file.executable else 0o644) << 16
            archive.writestr(entry, file.content, zipfile.ZIP_DEFLATED)
    return Download(
        name=name or f"{folder.name}.zip",
        content=packed.getvalue(),
        files=tuple(sorted(files)),
    )
