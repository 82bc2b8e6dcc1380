"""The manifest: which files of a folder linstock wrote, and what was in them."""

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import linstock

MANIFEST = "linstock.json"
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Manifest:
    """The files that linstock wrote into a folder.

    Attributes:
        files: SHA-256 of each file, by its name.
        before: The same of the files that are being replaced; empty once that is done.
        version: The version of linstock that wrote them.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, str] = field(default_factory=dict)
    version: str = linstock.__version__

    def text(self) -> str:
        """The text of `linstock.json`, the same for the same manifest."""
        content = {"linstock": self.version, "files": dict(self.files)}
        if self.before:
            content["before"] = dict(self.before)
        return json.dumps(content, indent=2) + "\n"

    def unchanged(self, folder: Path) -> dict[str, str]:
        """SHA-256 of the files that are as linstock wrote them: plain ones, with the very bytes."""
        found = {}
        for name in {**self.files, **self.before}:
            if is_plain(folder / name):
                value = hash_of(folder / name)
                if value in (self.files.get(name), self.before.get(name)):
                    found[name] = value
        return found


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None where there is none, or one that linstock did not write."""
    file = folder / MANIFEST
    if not is_plain(file):
        return None
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text)
        found = Manifest(content["files"], content.get("before", {}), content["linstock"])
        names = [*found.files, *found.before]
        hashes = [*found.files.values(), *found.before.values()]
        is_own = (
            found.text() == text
            and all(name and name == os.path.basename(name) for name in names)
            and all(_HASH.fullmatch(value) for value in hashes)
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if is_own else None


def is_plain(file: Path) -> bool:
    """Whether a path is a file, and no link to one."""
    try:
        return stat.S_ISREG(file.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def hash_of(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
