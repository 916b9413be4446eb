"""A calibration as a JSON file, read back exactly; a file that is damaged or was changed is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from memspace.errors import DataError, MemspaceError
from memspace.files import written
from memspace.gap.domain import Domain
from memspace.gap.line import Line
from memspace.gap.model import GapModel, Tier
from memspace.gap.predictors import PREDICTORS

__all__ = ["REMEDY", "SHIPPED", "load_gap_model", "opened_gap_model", "save_gap_model", "shipped_gap_model"]

FORMAT = 1
SHIPPED = "shipped"  # word for the calibration that is part of the package
REMEDY = "make a calibration by `memspace zoo calibrate STORE --to FILE` and give it by --calibration FILE"


def save_gap_model(model: GapModel, path: str | Path) -> str:
    """Write a calibration.

    Args:
        model: the calibration.
        path: of the file, JSON.

    Returns:
        Its hash: SHA-256 of the content, in hexadecimal digits.

    Raises:
        OutputError: it cannot be written.
    """
    content = {"format": FORMAT, **asdict(model)}
    digest = _digest(content)
    text = json.dumps({"digest": digest, **content}, ensure_ascii=False, allow_nan=False) + "\n"
    written(Path(path), partial(_write, text))
    return digest


def load_gap_model(path: str | Path) -> GapModel:
    """Read a calibration.

    Args:
        path: of the file.

    Returns:
        The calibration, equal to the one that was written.

    Raises:
        DataError: it is not there, is no calibration, or was changed.
    """
    try:
        return _read(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise DataError(f"the calibration cannot be read: {reason}", where=str(path), remedy=REMEDY) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if isinstance(error, MemspaceError):
            raise
        what = f"this is no calibration of the gap ({' '.join(str(error).split())[:100]})"
        raise DataError(what, where=str(path), remedy=REMEDY) from error


def shipped_gap_model() -> GapModel | None:
    """Read the calibration that is part of the package.

    Returns:
        The calibration; None where none is shipped.

    Raises:
        DataError: it is damaged.
    """
    shipped = files("memspace.gap") / "shipped" / "gap.json"
    return load_gap_model(str(shipped)) if shipped.is_file() else None


def opened_gap_model(calibration: GapModel | str | Path | None, where: str) -> tuple[GapModel, str]:
    """Take a calibration as it is, from its file, or the one that is shipped.

    Args:
        calibration: itself, its file, or None or ``SHIPPED`` for the one that is part of the package.
        where: whose argument it is.

    Returns:
        The calibration, and in a few words which one it is.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    if isinstance(calibration, GapModel):
        return calibration, f"on {calibration.networks} networks"
    if calibration not in (None, SHIPPED):
        return load_gap_model(calibration), Path(calibration).name
    shipped = shipped_gap_model()
    if shipped is None:
        raise DataError("no calibration is shipped with this version", where=where, remedy=REMEDY)
    return shipped, "shipped"


def _read(text: str) -> GapModel:
    content = json.loads(text)
    digest = content.pop("digest")
    if digest != _digest(content):
        raise ValueError("its content is not what its hash was made of")
    if content.pop("format") != FORMAT:
        raise ValueError("another format")
    tiers = tuple(_tier(t) for t in content["tiers"])
    content |= {"tiers": tiers, "groups": tuple(content["groups"])}
    model: GapModel = _made(GapModel, content)
    unknown = [p for p in model.predictors if p not in PREDICTORS]
    if unknown or not tiers:
        raise ValueError(f"unknown: {unknown[0]}" if unknown else "it has no line")
    return model


def _tier(content: Mapping[str, Any]) -> Tier:
    domain = {k: tuple(v) if isinstance(v, list) else v for k, v in content["domain"].items()}
    tier: Tier = _made(
        Tier,
        {
            **content,
            "predictors": tuple(content["predictors"]),
            "whole": _line(content["whole"]),
            "folds": tuple(map(_line, content["folds"])),
            "scores": tuple(map(tuple, content["scores"])),
            "domain": _made(Domain, domain),
        },
    )
    return tier


def _line(content: Mapping[str, Any]) -> Line:
    rows = tuple(map(tuple, content["precision"]))
    ends = {name: tuple(content[name]) for name in ("weights", "centre")}
    line: Line = _made(Line, {**content, **ends, "precision": rows})
    return line


def _made(kind: Any, content: Mapping[str, Any]) -> Any:
    names = {f.name for f in fields(kind)}
    if set(content) != names:
        raise ValueError(f"{kind.__name__} has {', '.join(sorted(set(content) ^ names))} too many or too few")
    return kind(**content)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _write(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")
