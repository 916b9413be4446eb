"""The commands of the command line, one module a command; each declares itself (see ``declaration``).

What is slow to import is imported inside the commands, so that a help page is there at once.
"""

from __future__ import annotations

from memspace.commands.declaration import command
from memspace.commands.output import default_folder, say_json

__all__ = ["command", "default_folder", "say_json"]
