"""Statistics the slow way: by their definitions, in loops, with scipy or a linear program."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
from scipy.optimize import linprog
from scipy.stats import rankdata, spearmanr


def pseudo_source_rhos(similarity, leakage, bystanders, length=None):
    """Rho of every persona's similarity over the bystanders but itself; partial on length and distance to its length."""
    found = []
    for persona in range(leakage.size):
        at = [j for j in np.flatnonzero(bystanders) if j != persona]
        if length is None:
            found.append(spearmanr(similarity[persona, at], leakage[at]).statistic)
            continue
        covariates = [np.ones(len(at)), rankdata(length[at]), rankdata(np.abs(length[at] - length[persona]))]
        design = np.stack(covariates, axis=1)
        left = [y - design @ np.linalg.lstsq(design, y, rcond=None)[0] for y in
                (rankdata(similarity[persona, at]), rankdata(leakage[at]))]  # fmt: skip
        found.append(np.corrcoef(left[0], left[1])[0, 1])
    return np.array(found)


def area_by_pairs(similarity, captured):
    """Share of pairs (captured, not) in which the captured one is more similar; ties count a half."""
    pairs = [(a > b) + 0.5 * (a == b) for a in similarity[captured] for b in similarity[~captured]]
    return float(np.mean(pairs))


def slope_over_all_splits(predictor, before, change):
    """Instrumental-variables slope with moments averaged over every split of the questions into two halves."""
    _personas, questions = before.shape
    b, y = before - before.mean(axis=0), change - change.mean(axis=0)
    x = rankdata(predictor)
    x = (x - x.mean()) / x.std()
    left, right = np.zeros((2, 2)), np.zeros(2)
    for half in combinations(range(questions), questions // 2):
        rest = [q for q in range(questions) if q not in half]
        regressors = np.stack([x, b[:, list(half)].mean(axis=1)])
        instruments = np.stack([x, b[:, rest].mean(axis=1)])
        left += instruments @ regressors.T
        right += instruments @ y[:, list(half)].mean(axis=1)
    return float(np.linalg.solve(left, right)[0])


def true_nulls_by_closure(p, alpha):
    """Size of the largest set of hypotheses that Simes' test does not reject."""
    most = 0
    for size in range(1, len(p) + 1):
        for chosen in combinations(sorted(p), size):
            if not any(value <= alpha * (rank + 1) / size for rank, value in enumerate(chosen)):
                most = size
    return most


def dip_by_linear_program(values):
    """Smallest D for which some unimodal distribution function keeps within D of the empirical one, mode by mode.

    Variables: the function left and right of the mode at the values, and D. Values must differ.
    """
    x = np.sort(values)
    n = x.size
    best = np.inf
    for mode in range(n):
        rows, bounds = [], []

        def ask(terms, limit, rows=rows, bounds=bounds):
            row = np.zeros(n + 2)
            for place, factor in terms:
                row[place] += factor
            rows.append(row)
            bounds.append(limit)

        d, jump = n + 1, n  # `jump`: the function just right of the mode; place `mode` is the one just left
        for i in range(n):
            left, right = (i, i) if i != mode else (mode, jump)
            ask([(left, 1), (d, -1)], i / n)
            ask([(left, -1), (d, -1)], -(i / n) if i == mode else -(i + 1) / n)
            ask([(right, -1), (d, -1)], -(i + 1) / n)
            ask([(right, 1), (d, -1)], (i + 1) / n if i == mode else i / n)
        ask([(mode, 1), (jump, -1)], 0)
        before = list(range(mode + 1))
        after = [jump, *range(mode + 1, n)]
        for chain, sign in ((before, 1), (after, -1)):
            at = [x[mode] if place == jump else x[place] for place in chain]
            for a, b in pairwise(chain):
                ask([(a, 1), (b, -1)], 0)
            for i in range(len(chain) - 2):
                first, second = at[i + 1] - at[i], at[i + 2] - at[i + 1]
                slopes = [
                    (chain[i], sign / -first),
                    (chain[i + 1], sign * (1 / first + 1 / second)),
                    (chain[i + 2], -sign / second),
                ]
                ask(slopes, 0)
        cost = np.zeros(n + 2)
        cost[d] = 1
        found = linprog(cost, A_ub=np.array(rows), b_ub=np.array(bounds), bounds=[(0, 1)] * (n + 1) + [(0, None)])
        best = min(best, found.fun)
    return float(best)
