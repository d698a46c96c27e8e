"""Quantities in words."""

_UNITS = ("", "k", "M", "G", "T", "P", "E")


def macs_text(macs: float) -> str:
    """Multiply-accumulates for people, to three digits: `6.8 GMAC`."""
    for unit in _UNITS:
        if macs < 999.5 or unit == _UNITS[-1]:
            break
        macs /= 1000
    return f"{macs:.3g} {unit}MAC"
