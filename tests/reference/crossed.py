"""Two crossed random effects the slow way: the covariance of all values written out, and its REML deviance on a grid."""

from __future__ import annotations

import numpy as np


def deviance(y, x, sources, personas, theta) -> tuple[float, float, float]:
    """(REML deviance, slope, standard error) with the effects' standard deviations `theta` times the error's."""
    same = [labels[:, None] == labels[None] for labels in (sources, personas)]
    covariance = np.eye(y.size) + theta[0] ** 2 * same[0] + theta[1] ** 2 * same[1]
    fixed = np.stack([np.ones_like(x), x], axis=1)
    inverse = np.linalg.inv(covariance)
    information = fixed.T @ inverse @ fixed
    line = np.linalg.solve(information, fixed.T @ inverse @ y)
    left = y - fixed @ line
    freedom = y.size - 2
    variance = left @ inverse @ left / freedom
    found = np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(information)[1]
    found += freedom * (np.log(2 * np.pi * variance) + 1)
    return found, line[1], (variance * np.linalg.inv(information)[1, 1]) ** 0.5


GRID = np.linspace(0, 2, 41)


def slope(y, x, sources, personas, grid=GRID) -> tuple[float, float, float]:
    """The same at the best of all pairs of standard deviations in `grid`."""
    return min(deviance(y, x, sources, personas, (a, b)) for a in grid for b in grid)
