"""Files of a model, found as OpenDSS finds them and only near its master file."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gridray.feeders.opendss.lexer import ScriptError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FILE_BYTES = 64 * 2**20
MAX_TOTAL_BYTES = 256 * 2**20
MAX_FILES = 100_000


class Folder:
    """The current folder of a script; files are read from the master's folder, its parent and what lies below."""

    def __init__(self, master: Path) -> None:
        self._home = master.parent.resolve()
        self._root = self._home.parent
        self._now = self._home
        self._names: dict[Path, dict[str, str]] = {}
        self._num_bytes = 0
        self._num_files = 0

    def read(self, name: str) -> tuple[str, str]:
        """Return a file's path as shown to people, and its text.

        Raises:
            ScriptError: there is no such file, it lies elsewhere, or it or all together are too large.
        """
        path = self._resolve(name)
        if path is None or not path.is_file():
            raise ScriptError(
                f"there is no file '{name[:200]}' in '{self._shown(self._now)}': correct the name or add it"
            )
        size = path.stat().st_size
        self._num_bytes += size
        self._num_files += 1
        if self._num_files > MAX_FILES:
            raise ScriptError(f"more than {MAX_FILES} files are read: take out redirects that repeat each other")
        if size > MAX_FILE_BYTES or self._num_bytes > MAX_TOTAL_BYTES:
            raise ScriptError(f"'{name[:200]}' has {size} bytes: files have at most {MAX_FILE_BYTES}")
        content = path.read_bytes()
        if b"\0" in content:
            raise ScriptError(f"'{name[:200]}' is not text: give an OpenDSS file")
        return self._shown(path), content.decode("latin-1").removeprefix("\u00ef\u00bb\u00bf")

    @contextmanager
    def inside(self, shown: str) -> Iterator[None]:
        """Make a file's folder the current one for a while."""
        before, self._now = self._now, (self._home / shown).resolve().parent
        yield
        self._now = before

    def enter(self, name: str) -> None:
        """Make another folder the current one.

        Raises:
            ScriptError: there is none.
        """
        path = self._resolve(name)
        if path is None or not path.is_dir():
            raise ScriptError(f"there is no folder '{name[:200]}' in '{self._shown(self._now)}': correct the name")
        self._now = path

    def enter_of(self, name: str) -> None:
        """Make the folder of a file the current one."""
        path = self._resolve(name)
        if path is not None:
            self._now = path.parent

    def _shown(self, path: Path) -> str:
        if path.is_relative_to(self._home):
            return str(path.relative_to(self._home))
        return str(Path("..") / path.relative_to(self._root))

    def _resolve(self, name: str) -> Path | None:
        path = self._now
        for part in Path(name.strip().replace("\\", "/")).parts:
            path = (path / self._spelled(path, part)).resolve()
            if not (path.is_relative_to(self._root) or self._root.is_relative_to(path)):
                raise ScriptError(f"'{name[:200]}' lies outside the model's folder: put it beside the master file")
        if not path.is_relative_to(self._root):
            raise ScriptError(f"'{name[:200]}' lies outside the model's folder: put it beside the master file")
        return path

    def _spelled(self, folder: Path, part: str) -> str:
        """Return a name as it is spelled on disk, whatever the case it is asked for in."""
        if part in {"..", ".", "/"} or not folder.is_relative_to(self._root):
            return part
        if folder not in self._names:
            entries = sorted(folder.iterdir(), reverse=True) if folder.is_dir() else []
            self._names[folder] = {entry.name.lower(): entry.name for entry in entries}
        names = self._names[folder]
        return names.get(part.lower(), part)
