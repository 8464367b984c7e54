"""How far results spread: the 95 % interval of a mean over trainings that differ in the seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Two-sided 95 % points of Student's t for 1, 2, … degrees of freedom.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Mean and half-width of its 95 % interval (Student's t) over runs that differ in the seed; None for one value.

    >>> mean, half = interval([50.0, 52.0, 54.0])
    >>> round(mean, 3), round(half, 3)
    (52.0, 4.969)
    """
    n = len(values)
    if n < 2:
        return None
    mean = sum(values) / n
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, student(n - 1) * deviation / math.sqrt(n)


def student(freedom: int) -> float:
    """The two-sided 95 % point of Student's t distribution, to 0.001.

    Args:
        freedom: degrees of freedom, 1 or more. Beyond the table, the first terms of Fisher's expansion are used.

    >>> student(2), round(student(16), 3), round(student(30), 3), round(student(1000), 3)
    (4.303, 2.119, 2.042, 1.962)
    """
    if freedom <= len(_T95):
        return _T95[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
