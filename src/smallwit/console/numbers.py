"""Format numbers for people: counts, FLOPs, seconds, bytes, per cent, points, p-values."""

import math


def human_count(value: float) -> str:
    """Format a count: 65_310 -> "65.3k", 494_000_000 -> "494M"."""
    return _scaled(value, ["", "k", "M", "B", "T"])


def human_flops(value: float) -> str:
    """Format FLOPs: 1.23e12 -> "1.2 TFLOP"."""
    text = _scaled(value, ["", " K", " M", " G", " T", " P", " E", " Z"])
    return text + ("FLOP" if " " in text else " FLOP")


def _scaled(value: float, units: list[str]) -> str:
    """Format a value with its unit: no decimals from 100 of a unit on, one decimal below."""
    step = 0
    # 999.5 and more would print as 1000 of a unit; 1.0 of the next unit is right.
    while value >= 999.5 and step < len(units) - 1:
        value, step = value / 1000, step + 1
    digits = 0 if value >= 99.95 or (step == 0 and float(value).is_integer()) else 1
    return f"{value:.{digits}f}{units[step]}"


def human_seconds(seconds: float) -> str:
    """Format seconds: 0.42 -> "0.4s", 41.3 -> "41s", 412 -> "6m 52s", 7_300 -> "2h 02m"."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def human_bytes(count: float) -> str:
    """Format bytes in units of 1000: 1_234_567 -> "1.2 MB"."""
    return _scaled(count, [" B", " kB", " MB", " GB", " TB"])


def percent(share: float | None) -> str:
    """Format a fraction as per cent with one decimal, without the sign %: 0.924 -> "92.4"."""
    return "—" if share is None or not math.isfinite(share) else f"{100 * share:.1f}"


def points(difference: float) -> str:
    """Format a difference of fractions in points: 0.123 -> "+12.3"; zero after rounding has no sign."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def p_value(p: float) -> str:
    """Format a p-value: "p = 0.034", "p = 1e-12"; two digits down to 0.001, one digit and the power of ten below."""
    if p < 1e-300:
        return "p < 1e-300"
    if p >= 0.001:
        return f"p = {p:.2g}"
    mantissa, exponent = f"{p:.0e}".split("e")
    return f"p = {mantissa}e{int(exponent)}"
