"""Loops over scores and lists, compiled. Sizes: q queries, i items, k list length, a attribute tokens.

Inputs are trusted: callers have checked shapes and that each row exists.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from encoder.kernels import compiled

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Rows = NDArray[np.int32]


@compiled
def seen_before(items: Rows, starts: Ints, ends: Ints, targets: Rows, seen: NDArray[np.bool_]) -> None:
    """`seen[n]` becomes whether `targets[n]` stands among items[starts[n]:ends[n]]."""
    for query in range(len(targets)):
        for row in range(starts[query], ends[query]):
            if items[row] == targets[query]:
                seen[query] = True
                break


@compiled
def rank_rows(
    scores: Floats,
    targets: Rows,
    items: Rows,
    starts: Ints,
    ends: Ints,
    best: Floats,
    lists: Rows,
    ranks: NDArray[np.float64],
) -> int:
    """Ranks (q,) of the targets and the best k items (q, k) of each row of `scores` (q, i).

    items[starts[n]:ends[n]] take no part in query n, its target excepted. `best` (q, k) comes filled with -inf,
    `lists` with -1. Returns the first query with a score that is NaN or +inf, or -1.
    """
    masked_in = np.full(scores.shape[1], -1, np.int64)
    k = best.shape[1]
    for query in range(scores.shape[0]):
        for row in range(starts[query], ends[query]):
            masked_in[items[row]] = query
        target = targets[query]
        masked_in[target] = -1
        own, above, level = scores[query, target], 0, 0
        for item in range(scores.shape[1]):
            score = scores[query, item]
            if not score < np.inf:
                return query
            if masked_in[item] == query:
                continue
            above += score > own
            level += score == own
            if k and score > best[query, k - 1]:
                place = k - 1
                while place > 0 and best[query, place - 1] < score:
                    best[query, place] = best[query, place - 1]
                    lists[query, place] = lists[query, place - 1]
                    place -= 1
                best[query, place] = score
                lists[query, place] = item
        ranks[query] = 1.0 + above + (level - 1) / 2.0
    return -1


@compiled
def overlaps(lists: Rows, token_starts: Ints, tokens: Rows, token_count: int, cosines: NDArray[np.float64]) -> None:
    """Mean cosine of all pairs in each list (q, k), an item being the set tokens[token_starts[n]:token_starts[n + 1]].

    `cosines` (q,) comes filled with NaN, which stays for lists of fewer than two items.
    """
    sums = np.zeros(token_count, np.float64)
    for row in range(lists.shape[0]):
        length, own = 0, 0.0
        for item in lists[row]:
            if item < 0:
                break
            length += 1
            first, last = token_starts[item], token_starts[item + 1]
            own += 1.0 if last > first else 0.0
            for place in range(first, last):
                sums[tokens[place]] += 1.0 / np.sqrt(last - first)
        both = 0.0
        # a token's square is taken once, where it is met first, and its sum goes back to zero for the next list
        for number in range(length):
            for place in range(token_starts[lists[row, number]], token_starts[lists[row, number] + 1]):
                both += sums[tokens[place]] ** 2
                sums[tokens[place]] = 0.0
        if length > 1:
            cosines[row] = (both - own) / (length * (length - 1))
