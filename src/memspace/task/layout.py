"""Which part of a raw batch is input and which is label, and how the network takes the inputs.

The rules, in order:

* a pair is (inputs, label);
* in a dict the label is the entry called ``labels``, ``label``, ``label_ids``, ``targets``, ``target`` or ``y``; the
  others are keyword arguments, of which those that ``forward`` does not name are left out. Of a single other entry
  the name does not matter; a ``forward`` that takes one argument and none of the names is given the whole dict;
* in a tuple of three or more the label follows the inputs that ``forward`` takes; entries after it (ids) are left out;
* strings and None are no inputs; numbers and tensors without an axis of examples are given to every call alike.

Where more than one reading is possible the network is asked: the first reading that it accepts counts.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from memspace.errors import DataError
from memspace.task.tensors import leaves

__all__ = ["LABELS", "Layout", "Signature", "layouts"]

LABELS = ("labels", "label", "label_ids", "targets", "target", "y")


@dataclass(frozen=True)
class Signature:
    """What a model's ``forward`` takes.

    Args:
        names: of its arguments, in order.
        required: those without a default.
        positions: whether it takes any further positional arguments.
        keywords: whether it takes any further keyword arguments.
    """

    names: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    positions: bool = True
    keywords: bool = True

    @staticmethod
    def of(model: nn.Module) -> Signature:
        """Read a model's own ``forward``; where there is none to read, everything is taken.

        Args:
            model: the network.

        Returns:
            Its signature.
        """
        try:
            arguments = inspect.signature(model.forward).parameters.values()
        except (TypeError, ValueError):
            return Signature()
        named = [p for p in arguments if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        return Signature(
            tuple(p.name for p in named),
            tuple(p.name for p in named if p.default is p.empty),
            any(p.kind is p.VAR_POSITIONAL for p in arguments),
            any(p.kind is p.VAR_KEYWORD for p in arguments),
        )


@dataclass(frozen=True)
class Layout:
    """One reading of a raw batch.

    Args:
        label: where the label is: 1 in a pair, a key of a dict, a place in a tuple.
        keep: of inputs in a dict, the entries used; None: all that are tensors.
        form: ``as given``; ``alone``: the only entry, without its name; ``dict``: the dict as one argument.
        shared: entries of a dict or places in a tuple without an axis of examples; they are not part of a batch
            but go to the network at every call.
    """

    label: Any = 1
    keep: tuple[str, ...] | None = None
    form: str = "as given"
    shared: tuple[Any, ...] = ()

    def without_shared(self, x: Any) -> Any:
        """Remove the inputs that have no axis of examples.

        Args:
            x: inputs.

        Returns:
            The others.
        """
        if not self.shared:
            return x
        if isinstance(x, Mapping):
            return {k: v for k, v in x.items() if k not in self.shared}
        return tuple(v for k, v in enumerate(x) if k not in self.shared)

    def split(self, raw: Any, name: str) -> tuple[Any, Any]:
        """Split a raw batch into inputs and label.

        Args:
            raw: the batch.
            name: of the data, for messages.

        Returns:
            The inputs (a tensor, a tuple of them or a dict of them) and the label.

        Raises:
            DataError: the batch has another layout, or holds no tensor to put into the network.
        """
        x: Any
        if isinstance(raw, Mapping):
            if self.label not in raw:
                raise DataError(
                    f"the {name} has no entry {self.label!r}, only {', '.join(map(str, raw))}",
                    where=name,
                    remedy="give all data the same entries",
                )
            x, y = {k: v for k, v in raw.items() if k != self.label}, raw[self.label]
        elif isinstance(raw, tuple) and isinstance(self.label, int) and len(raw) > self.label:
            x, y = raw[0] if self.label == 1 else raw[: self.label], raw[self.label]
        else:
            raise no_pairs(raw, name)
        return self._inputs(x, name), y

    def _inputs(self, x: Any, name: str) -> Any:
        if isinstance(x, Mapping):
            x = {k: v for k, v in x.items() if self.keep is None or k in self.keep}
            x = {k: v for k, v in x.items() if v is not None and not _is_words(v)}
            if self.form == "alone":
                x = next(iter(x.values()))
            elif self.form == "dict":
                x = (x,)
        elif isinstance(x, list):
            x = tuple(x)
        if not leaves(x):
            raise DataError(
                f"the inputs of the {name} hold no tensor",
                where=name,
                remedy="turn them into numbers first: tokens, pixels",
            )
        return x


def no_pairs(raw: Any, name: str) -> DataError:
    """Make the error for a batch in which no label is found.

    Args:
        raw: the batch.
        name: of the data.

    Returns:
        The error, to be raised.
    """
    word = f"{len(raw)} entries" if isinstance(raw, tuple | list) else f"a {type(raw).__name__}"
    return DataError(
        f"{name} does not give (input, label) pairs, but {word}",
        where=name,
        remedy="let it give (input, label) pairs, or dicts with an entry 'labels'",
    )


def layouts(raw: Any, signature: Signature | None, name: str) -> list[Layout]:
    """List the readings of a raw batch that the rules allow, the likeliest first.

    Args:
        raw: the batch.
        signature: of the network, or None where none is known yet.
        name: of the data, for messages.

    Returns:
        One reading or more.

    Raises:
        DataError: no label is found, or more than one.
    """
    known = signature or Signature()
    if isinstance(raw, Mapping):
        label = _label(raw, known, name)
        rest = {k: v for k, v in raw.items() if k != label}
        return [replace(reading, label=label) for reading in _keywords(rest, known)]
    if not isinstance(raw, tuple) or len(raw) < 2:
        raise no_pairs(raw, name)
    if len(raw) == 2:
        if isinstance(raw[0], Mapping):
            return _keywords(dict(raw[0]), known)
        return [Layout()]
    return _places(raw, signature, name)


def _label(raw: Mapping[str, Any], signature: Signature, name: str) -> str:
    named = [k for k in LABELS if k in raw]
    labels = [k for k in named if k not in signature.required] or named
    if len(labels) > 1:
        raise DataError(
            f"an example of the {name} has more than one label: {', '.join(labels)}",
            where=name,
            remedy="leave all but one out, or let the dataset return (inputs, label) pairs",
        )
    if not labels:
        raise DataError(
            f"an example of the {name} has the entries {', '.join(map(str, raw))}, none of which is called "
            f"{', '.join(LABELS[:-1])} or {LABELS[-1]}",
            where=name,
            remedy="rename the label, or let the dataset return (inputs, label) pairs",
        )
    return labels[0]


def _keywords(x: dict[str, Any], signature: Signature) -> list[Layout]:
    tensors = tuple(k for k, v in x.items() if v is not None and not _is_words(v))
    named = tuple(k for k in tensors if k in signature.names)
    enough = all(k in named for k in signature.required)
    readings = []
    if signature.keywords:
        readings.append(Layout(keep=tensors))
    if named and enough:
        readings.append(Layout(keep=named))
    takes_one = len(signature.required) <= 1 and (bool(signature.names) or signature.positions)
    if len(tensors) == 1 and takes_one:
        readings.append(Layout(keep=tensors, form="alone"))
    if takes_one and not (named and enough):
        readings.append(Layout(form="dict", keep=tensors))
    readings = list(dict.fromkeys(readings))
    return readings or [Layout(keep=tensors)]


def _places(raw: tuple[Any, ...], signature: Signature | None, name: str) -> list[Layout]:
    """Read a tuple of three or more: as many inputs as the network takes, then the label, then entries left out."""
    if signature is None:
        raise DataError(
            f"an item of the {name} has {len(raw)} entries, and which is the label depends on the network",
            where=name,
            remedy="put it into memspace.Task with its network, or let the dataset return (input, label) pairs",
        )
    least = max(1, len(signature.required))
    most = len(raw) - 1 if signature.positions else len(signature.names)
    places = [k for k in range(least, min(most, len(raw) - 1) + 1) if not _is_words(raw[k]) or k == 1]
    if not places:
        raise DataError(
            f"an item of the {name} has {len(raw)} entries, the network takes {least} inputs",
            where=name,
            remedy="let the dataset return (input, label) pairs, with a tuple of inputs where there are several",
        )
    return [Layout(label=k) for k in reversed(places)]


def _is_words(v: Any) -> bool:
    return isinstance(v, str) or (isinstance(v, list) and all(isinstance(w, str) for w in v))
