"""Numbers as the report writes them: the one place that decides digits, powers of ten, spreads and units."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

MEASURED_DIGITS = 3
"""Significant digits of a measured number."""
EXACT_DIGITS = 6
"""Significant digits of a setting, which is a number that somebody chose."""
LISTED = 6
"""So many values of a sweep are listed; of more, the range is given."""

_POWER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?[eE][-+]?\d+(?![\w.]*\w)")
_MINUS = re.compile(r"(?<![\w.)\]])-(?=[\d.])")
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = MEASURED_DIGITS) -> str:
    """Return a number for people: 0.0065, 25,000, 10⁵, 1.6·10⁻⁴, −3.

    Args:
        value: the number; NaN and infinities become words.
        digits: significant digits; trailing zeros are left out, and digits before the decimal point are kept.
    """
    if not math.isfinite(value):
        return "none" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    sign = "−" if value < 0 else ""
    text = f"{abs(value):.{digits - 1}e}"
    mantissa, _, power = text.partition("e")
    exponent = int(power)
    if float(mantissa) == 0:
        return "0"
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    if exponent < -3 or exponent > 5 or (mantissa == "1" and exponent > 4):
        ten = f"10{str(exponent).translate(_SUPERSCRIPT)}"
        return sign + (ten if mantissa == "1" else f"{mantissa}·{ten}")
    plain = f"{float(text):,.{max(0, digits - 1 - exponent)}f}" if exponent < digits else f"{abs(value):,.0f}"
    return sign + (plain.rstrip("0").rstrip(".") if "." in plain else plain)


def setting(value: Any) -> str:
    """Return a chosen value: a number with all its digits, yes or no, or a short list."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value, EXACT_DIGITS)
    if isinstance(value, list | tuple):
        return values(value)
    return str(value).replace("_", " ")


def values(listed: Sequence[Any]) -> str:
    """Return the values of a sweep: all of a few, or how many there are and from where to where."""
    if len(listed) <= LISTED:
        texts = [setting(value) for value in listed]
        return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))
    if all(isinstance(value, int | float) for value in listed):
        return f"{len(listed)} values from {setting(min(listed))} to {setting(max(listed))}"
    return f"{len(listed)} values"


def with_unit(text: str, unit: str) -> str:
    """Return the text with its unit, which is left out where it is 1."""
    return text if unit in ("", "1") else f"{text} {unit}"


def spread(middle: float, low: float, high: float) -> str:
    """Return a median and a range, such as ``0.74 (0.7–0.8)``; the number alone where the range adds nothing."""
    texts = [number(value) for value in (middle, low, high)]
    return texts[0] if texts[1] == texts[2] else f"{texts[0]} ({texts[1]}–{texts[2]})"


def duration(seconds: float) -> str:
    """Return seconds as ``42 s``, ``12 min`` or ``3.4 h``."""
    if seconds < 90:
        return f"{number(seconds, 2)} s"
    return f"{number(seconds / 60, 2)} min" if seconds < 5400 else f"{number(seconds / 3600, 2)} h"


def typeset(text: str) -> str:
    """Return a sentence with its numbers as the report writes them: ``>= 1e-6`` becomes ``≥ 10⁻⁶``, ``-2`` ``−2``."""
    text = _POWER.sub(lambda found: number(float(found[0]), EXACT_DIGITS), text)
    return _MINUS.sub("−", text).replace(">=", "≥").replace("<=", "≤")
