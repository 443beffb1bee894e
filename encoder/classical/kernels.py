"""Loops of the classical recommenders, compiled. Sizes: e events, u users, i items, q queries, n neighbours.

Inputs are trusted: callers have checked shapes and that each row exists. A *set* of a user is the distinct items of
the training part, as rows `starts[u]` to `starts[u + 1]` of one array; likewise the users of an item.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from encoder.kernels import compiled

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Rows = NDArray[np.int32]


@compiled
def decayed_popularity(
    event_times: Doubles, event_items: Rows, query_times: Doubles, levels: Doubles, scores: Floats
) -> None:
    """Fills `scores` (q, i) with log2 of each item's decayed count at each query's time; -inf without events.

    Times are in half-lives, events and queries oldest first; an event counts for queries later than it. `levels`
    (i,) comes filled with -inf: log2(count) + time, which stands still while the count halves, so that nothing
    overflows however long the log is.
    """
    event = 0
    for query in range(len(query_times)):
        while event < len(event_times) and event_times[event] < query_times[query]:
            level, now = levels[event_items[event]], event_times[event]
            high = max(level, now)
            levels[event_items[event]] = high + np.log2(2.0 ** (level - high) + 2.0 ** (now - high))
            event += 1
        for item in range(len(levels)):
            scores[query, item] = levels[item] - query_times[query]


@compiled
def keep_heaviest(
    row: int, sums: Doubles, touched: Rows, count: int, columns: Rows, weights: Floats, lengths: Rows
) -> None:
    """Moves the heaviest of `sums[touched[:count]]` into row `row` of the (i, n) arrays and sets the sums to zero."""
    values = np.empty(count, np.float64)
    for place in range(count):
        values[place] = -sums[touched[place]]
    kept = min(count, columns.shape[1])
    order = np.argsort(values, kind="mergesort") if kept < count else np.arange(count)
    for place in range(kept):
        columns[row, place] = touched[order[place]]
        weights[row, place] = -values[order[place]]
    lengths[row] = kept
    for place in range(count):
        sums[touched[place]] = 0.0


@compiled
def item_cosines(
    set_starts: Ints, sets: Rows, fan_starts: Ints, fans: Rows, columns: Rows, weights: Floats, lengths: Rows
) -> None:
    """For each item the n others (i, n) of the highest cosine: common users / sqrt(users of one * users of other)."""
    items = len(fan_starts) - 1
    sums, touched = np.zeros(items, np.float64), np.empty(items, np.int32)
    for item in range(items):
        count, own = 0, fan_starts[item + 1] - fan_starts[item]
        for fan in range(fan_starts[item], fan_starts[item + 1]):
            for place in range(set_starts[fans[fan]], set_starts[fans[fan] + 1]):
                other = sets[place]
                if other == item:
                    continue
                if sums[other] == 0.0:
                    touched[count] = other
                    count += 1
                sums[other] += 1.0 / np.sqrt(own * (fan_starts[other + 1] - fan_starts[other]))
        keep_heaviest(item, sums, touched, count, columns, weights, lengths)


@compiled
def rule_masses(items: Rows, starts: Ints, ends: Ints, window: int, masses: Doubles) -> None:
    """Adds to `masses` (i,) what each item co-occurs with others: 1/distance for pairs within `window` events."""
    for user in range(len(starts)):
        for row in range(starts[user], ends[user]):
            for distance in range(1, min(window, row - starts[user]) + 1):
                if items[row] != items[row - distance]:
                    masses[items[row]] += 1.0 / distance
                    masses[items[row - distance]] += 1.0 / distance


@compiled
def rule_weights(
    items: Rows,
    starts: Ints,
    ends: Ints,
    places_of: tuple[Ints, Ints, Rows],
    window: int,
    masses: Doubles,
    columns: Rows,
    weights: Floats,
    lengths: Rows,
) -> None:
    """For each item the n heaviest others (i, n): mass in common / sqrt((mass of one + 1) * (mass of other + 1)).

    `places_of` lists the events of each item: the starts (i + 1,) into the rows (e,), and the user of each row.
    """
    place_starts, places, users = places_of
    sums, touched = np.zeros(len(masses), np.float64), np.empty(len(masses), np.int32)
    for item in range(len(masses)):
        count = 0
        for place in range(place_starts[item], place_starts[item + 1]):
            row, user = places[place], users[place]
            for near in range(max(starts[user], row - window), min(ends[user], row + window + 1)):
                other = items[near]
                if other == item:
                    continue
                if sums[other] == 0.0:
                    touched[count] = other
                    count += 1
                sums[other] += 1.0 / (abs(near - row) * np.sqrt((masses[item] + 1.0) * (masses[other] + 1.0)))
        keep_heaviest(item, sums, touched, count, columns, weights, lengths)


@compiled
def score_by_items(
    items: Rows, starts: Ints, ends: Ints, depth: int, columns: Rows, weights: Floats, lengths: Rows, scores: Floats
) -> None:
    """Adds to `scores` (q, i), for the last `depth` events of each history, weights of the neighbours / position."""
    for query in range(len(starts)):
        for position in range(1, min(depth, ends[query] - starts[query]) + 1):
            item = items[ends[query] - position]
            for place in range(lengths[item]):
                scores[query, columns[item, place]] += weights[item, place] / position


@compiled
def user_cosines(
    items: Rows, start: int, end: int, set_starts: Ints, fan_starts: Ints, fans: Rows, common: Doubles, touched: Rows
) -> int:
    """Fills `common` (u,) with the cosine of one history's distinct items and each user's set; returns how many
    users have one, and lists them in `touched`.
    """
    count, own = 0, 0
    known = set()
    for row in range(start, end):
        if items[row] in known:
            continue
        known.add(items[row])
        own += 1
        for fan in range(fan_starts[items[row]], fan_starts[items[row] + 1]):
            if common[fans[fan]] == 0.0:
                touched[count] = fans[fan]
                count += 1
            common[fans[fan]] += 1.0
    for place in range(count):
        user = touched[place]
        common[user] /= np.sqrt(own * (set_starts[user + 1] - set_starts[user]))
    return count


@compiled
def score_by_users(
    items: Rows,
    starts: Ints,
    ends: Ints,
    users: Rows,
    set_starts: Ints,
    sets: Rows,
    fan_starts: Ints,
    fans: Rows,
    neighbours: int,
    scores: Floats,
) -> None:
    """Adds to `scores` (q, i), for the `neighbours` most similar users, their cosine to each item of their sets.

    `users` (q,) are no neighbours of themselves. Among equal cosines the lower user row comes first.
    """
    everybody = len(set_starts) - 1
    cosines, touched = np.zeros(everybody, np.float64), np.empty(everybody, np.int32)
    for query in range(len(starts)):
        count = user_cosines(items, starts[query], ends[query], set_starts, fan_starts, fans, cosines, touched)
        cosines[users[query]] = 0.0
        met = np.sort(touched[:count])
        for place in np.argsort(-cosines[met], kind="mergesort")[:neighbours]:
            for row in range(set_starts[met[place]], set_starts[met[place] + 1]):
                scores[query, sets[row]] += cosines[met[place]]
        cosines[touched[:count]] = 0.0


@compiled
def score_by_votes(
    nearest: Rows, votes: Floats, items: Rows, starts: Ints, ends: Ints, depth: int, scores: Floats
) -> None:
    """Adds to `scores` (q, i) each neighbour's vote / sqrt(position) for the last `depth` items of that neighbour.

    `nearest` and `votes` are (q, n); `starts` and `ends` are rows of `items` by neighbour.
    """
    for query in range(nearest.shape[0]):
        for place in range(nearest.shape[1]):
            user = nearest[query, place]
            for position in range(1, min(depth, ends[user] - starts[user]) + 1):
                scores[query, items[ends[user] - position]] += votes[query, place] / np.sqrt(position)


@compiled
def common_counts(set_starts: Ints, sets: Rows, gram: Floats) -> None:
    """Adds to `gram` (i, i) how many users have both items, on its diagonal how many have the item."""
    for user in range(len(set_starts) - 1):
        for one in range(set_starts[user], set_starts[user + 1]):
            for other in range(set_starts[user], set_starts[user + 1]):
                gram[sets[one], sets[other]] += 1.0


@compiled
def sum_rows(items: Rows, starts: Ints, ends: Ints, weights: Floats, scores: Floats) -> None:
    """Adds to `scores` (q, i) the rows of `weights` (i, i) of each history's distinct items."""
    added_in = np.full(len(weights), -1, np.int64)
    for query in range(len(starts)):
        for row in range(starts[query], ends[query]):
            item = items[row]
            if added_in[item] != query:
                added_in[item] = query
                scores[query] += weights[item]
