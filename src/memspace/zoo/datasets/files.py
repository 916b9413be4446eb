"""Finding the files of data sets that are read from a folder the user names."""

from __future__ import annotations

import os
from pathlib import Path

from memspace.errors import DataError

__all__ = ["text_of"]


def text_of(root: Path | None, folder: str, name: str) -> str:
    """Read a text file of a data set.

    Args:
        root: the folder with the file, or the one above; None: the environment variable MEMSPACE_DATA.
        folder: usual name of the folder.
        name: of the file.

    Returns:
        Its content.

    Raises:
        DataError: no folder is named, or the file is not there or no text.
    """
    named = root if root is not None else os.environ.get("MEMSPACE_DATA")
    if named is None:
        remedy = f"give --data-root DIR or set MEMSPACE_DATA to the folder that holds {folder}/{name}"
        raise DataError(f"{folder} needs its folder", where=folder, remedy=remedy)
    for path in (Path(named) / folder / name, Path(named) / name):
        if path.is_file():
            try:
                return path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(
                    f"it cannot be read ({error})", where=str(path), remedy="fetch the file again"
                ) from error
    raise DataError(f"{name} is missing", where=str(named), remedy=f"point --data-root at the folder that holds {name}")
