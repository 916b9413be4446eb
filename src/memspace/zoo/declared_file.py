"""Declarations in TOML: of a name that is shipped with a package, or in a user's file."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

from memspace.errors import DataError

__all__ = ["read_declared", "shipped_declarations"]


def shipped_declarations(package: str) -> tuple[str, ...]:
    """List the declarations in the folder ``declared`` of a package.

    Args:
        package: its name.

    Returns:
        Their names.
    """
    folder = files(package) / "declared"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def read_declared(name: str | Path, package: str, what: str, where: str) -> dict[str, Any]:
    """Read a declaration.

    Args:
        name: of a shipped one, or path of a file.
        package: that ships some.
        what: is declared, for messages: ``"zoo"``.
        where: the command, for messages.

    Returns:
        The content.

    Raises:
        DataError: there is no such file, or it is not TOML.
    """
    path, shipped = Path(name), shipped_declarations(package)
    if str(name) in shipped:
        text = (files(package) / "declared" / f"{name}.toml").read_text(encoding="utf-8")
    elif path.is_file():
        text = path.read_text(encoding="utf-8")
    else:
        remedy = f"name one of {', '.join(shipped)}, or a file"
        raise DataError(f"there is no {what} {str(name)!r}", where=where, remedy=remedy)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"the declaration is not TOML ({error})", where=str(name), remedy="mend the line") from error
