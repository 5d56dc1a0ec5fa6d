"""What the user can mend: errors whose message is one sentence that names what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


class UserError(Exception):
    """Base of all errors that are for the user: the command prints the message alone and ends with a non-zero code."""


class ConfigError(UserError, ValueError):
    """The configuration cannot be used."""


def nearest(wrong: str, valid: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)``, or the list of what is valid, or nothing where nothing is."""
    valid = list(valid)
    close = difflib.get_close_matches(wrong, valid, n=1)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (valid: {', '.join(valid)})" if valid else ""


def check_names(names: Iterable[str], valid: Iterable[str], kind: str, where: str = "") -> None:
    """Check that all of what is called a ``kind`` are there; ``where`` begins the message otherwise.

    Raises:
        ConfigError: with the first that is not, and the nearest that is.
    """
    for name in names:
        if name not in valid:
            raise ConfigError(f"{where}there is no {kind} {name!r}{nearest(name, valid)}")


def describe(error: ValidationError, where: str, model: type[BaseModel]) -> str:
    """Return one sentence for the first problem that pydantic found, with the nearest valid name."""
    # Of a union's branches the one that went deepest is the one that was meant.
    first = max(error.errors(include_url=False), key=lambda found: len(found["loc"]))
    place = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("list[", "constrained-")))
    if first["type"] == "extra_forbidden":
        wrong = str(first["loc"][-1])
        return f"{where}: there is no field {place!r}{nearest(wrong, _fields_at(model, first['loc'][:-1]))}"
    message = first["msg"].removeprefix("Value error, ")
    given = "" if first["type"] == "missing" else f", not {first['input']!r}"
    return f"{where}: {place}: {message[0].lower()}{message[1:]}{given}"


def _fields_at(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The valid field names of the model at a location, as far as annotations tell."""
    for part in place:
        field = model.model_fields.get(str(part))
        if field is None:
            continue
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        models = [c for c in candidates if isinstance(c, type) and hasattr(c, "model_fields")]
        if models:
            model = models[0]
    return list(model.model_fields)
