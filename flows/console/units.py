"""Numbers with units, for a person."""


def size(count: float) -> str:
    """Bytes in decimal units: 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} PB"
