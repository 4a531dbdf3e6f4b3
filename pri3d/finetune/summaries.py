"""Figures as text."""

import math


def percent(share: float | None) -> str:
    """A share 0..1 in %; a dash where it is not defined."""
    return "-" if share is None or math.isnan(share) else f"{100 * share:.2f} %"
