"""Units people mix up, as factors between them: for hints, never for conversion behind anyone's back."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Conversion:
    """`usual` = `other` · factor; `words` are parts of column names it is likely for, () for any."""

    usual: str
    other: str
    factor: float
    words: tuple[str, ...] = ()


CONVERSIONS = (
    Conversion("mg/dL", "mmol/L", 38.67, ("chol", "hdl", "ldl")),
    Conversion("mg/dL", "mmol/L", 88.57, ("trigly", "tg")),
    Conversion("mg/dL", "mmol/L", 18.016, ("gluc", "sugar", "zucker", "fbs")),
    Conversion("mg/dL", "mmol/L", 2.801, ("bun",)),
    Conversion("mg/dL", "mmol/L", 6.006, ("urea",)),
    Conversion("mg/dL", "mmol/L", 4.008, ("calcium",)),
    Conversion("µmol/L", "mg/dL", 88.42, ("creat", "krea")),
    Conversion("µmol/L", "mg/dL", 17.1, ("bili",)),
    Conversion("g/L", "g/dL", 10.0, ("haemoglobin", "hemoglobin", "hb", "albumin")),
    Conversion("mmHg", "kPa", 7.50062, ("bp", "press", "druck")),
    Conversion("lb", "kg", 2.20462, ("weight", "gewicht", "mass")),
    Conversion("cm", "in", 2.54, ("height", "length", "waist")),
    Conversion("cm", "m", 100.0, ("height", "length", "size")),
    Conversion("months", "years", 12.0, ("age", "alter", "duration")),
    Conversion("days", "years", 365.25, ("age", "alter", "duration")),
    Conversion("minutes", "hours", 60.0, ("time", "duration")),
    Conversion("W", "kW", 1000.0, ("power",)),
    Conversion("percent", "share", 100.0),
    Conversion("thousands", "units", 0.001),
)
CLOSE = 0.2  # how far, as a share, an observed ratio may be from a factor


def likely(name: str, unit: str, ratio: float) -> str | None:
    """The unit that numbers `ratio` times lower than usual are likely in (ratio < 1: higher), or None.

    Only conversions for columns so named or in that unit are considered, then those for any column.
    """
    lower = name.lower()
    for general in (False, True):
        best: tuple[float, str] | None = None
        for conversion in CONVERSIONS:
            if general == bool(conversion.words) or (not general and not any(w in lower for w in conversion.words)):
                continue
            for factor, usual, other in (
                (conversion.factor, conversion.usual, conversion.other),
                (1 / conversion.factor, conversion.other, conversion.usual),
            ):
                distance = abs(ratio / factor - 1)
                if distance <= CLOSE and (not unit or unit == usual) and (best is None or distance < best[0]):
                    best = (distance, other)
        if best:
            return best[1]
    return None
