"""What other packages add to memspace: measures, chapters, output laws, layer kinds, metrics, commands, tasks.

An extension is a module that registers what it brings when it is imported. A package names it as an entry point::

    [project.entry-points."memspace.extensions"]
    anything = "its_package.its_module"

Every place that lists registered things calls :func:`load_extensions` first.
"""

from __future__ import annotations

import warnings
from importlib.metadata import entry_points

__all__ = ["GROUP", "load_extensions"]

GROUP = "memspace.extensions"
_loaded: set[str] = set()


def load_extensions() -> None:
    """Import the modules that installed packages name as extensions, each once.

    An extension that cannot be imported is warned of by name; the others, and memspace itself, work without it.
    """
    for point in entry_points(group=GROUP):
        if point.value in _loaded:
            continue
        _loaded.add(point.value)
        try:
            point.load()
        except Exception as error:
            what = f"the extension {point.value} could not be imported ({type(error).__name__}: {error})"
            warnings.warn(f"memspace: {what}; memspace works without it", stacklevel=2)
