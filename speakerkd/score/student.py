"""Student's t distribution, for any number of degrees of freedom from 1 on, with NumPy alone."""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=256)
def _angles_and_areas(freedom: float) -> tuple[np.ndarray, np.ndarray]:
    """With t = sqrt(freedom) tan(angle), the density over the angle is proportional to cos(angle) ** (freedom - 1)."""
    if not freedom >= 1:
        raise ValueError(f"Student's t needs at least one degree of freedom, not {freedom}")
    angles = np.linspace(-np.pi / 2, np.pi / 2, 20001)
    density = np.abs(np.cos(angles)) ** (freedom - 1)
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return angles, area / area[-1]


def student_cdf(value: float, freedom: float) -> float:
    """The probability of a t at or below the value."""
    angles, areas = _angles_and_areas(freedom)
    return float(np.interp(np.arctan(value / np.sqrt(freedom)), angles, areas))


def student_quantile(probability: float, freedom: float) -> float:
    """The t with this probability at or below it: the inverse of student_cdf."""
    angles, areas = _angles_and_areas(freedom)
    return float(np.sqrt(freedom) * np.tan(np.interp(probability, areas, angles)))
