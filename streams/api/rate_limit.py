"""How often one address may ask: a bucket of tokens each, in a bounded table. Pure; the time is an argument."""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

ADDRESSES_MAX = 10_000
BURST_S = 2.0
"""What an idle address may ask at once, in seconds of its rate."""
FULL_IPV6_PREFIX = 64
"""A household or a machine has that many addresses of its own."""


class RateLimit:
    """At most `requests_per_s` by address in the long run, and twice as many at once; 0 lets everything through."""

    def __init__(self, requests_per_s: float) -> None:
        self._rate = requests_per_s
        self._full = max(1.0, BURST_S * requests_per_s)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, address: str, now_s: float, cost: float = 1.0) -> float:
        """Takes `cost` tokens and returns 0, or takes none and returns after how many seconds there will be enough.

        A clock that goes back gives no tokens. The address that asked the longest ago goes when the table is full.
        """
        if self._rate == 0:
            return 0.0
        left, since_s = self._buckets.pop(address, (self._full, now_s))
        left = min(self._full, left + max(0.0, now_s - since_s) * self._rate)
        cost = min(cost, self._full)
        enough = left >= cost
        self._buckets[address] = (left - cost if enough else left, now_s)
        if len(self._buckets) > ADDRESSES_MAX:
            self._buckets.popitem(last=False)
        return 0.0 if enough else (cost - left) / self._rate


@lru_cache(ADDRESSES_MAX)
def limited_address(address: str) -> str:
    """What counts as one: an IPv4 address, the network of an IPv6 one, or the text where it is neither."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(ip_network((parsed, FULL_IPV6_PREFIX), strict=False))
    return str(parsed)
