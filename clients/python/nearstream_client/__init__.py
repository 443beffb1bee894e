"""Thin clients of Nearstream's HTTP API: `Client` for blocking code, `AsyncClient` for asyncio.

with Client("http://127.0.0.1:8686") as nearstream:
    nearstream.send_events([{"user_id": "ada", "item_id": "red-shoes", "type": "view", "timestamp": 1700000000000}])
    print([item.item_id for item in nearstream.list("ada").items])
"""

from nearstream_client.async_client import AsyncClient
from nearstream_client.calls import EVENTS_MAX, LEFT_OUT_ITEMS_MAX, SUPPOSED_EVENTS_MAX, USERS_MAX, Part
from nearstream_client.client import Client
from nearstream_client.errors import (
    BadRequest,
    Conflict,
    NearstreamError,
    NotAllowed,
    NotFound,
    NotReady,
    Refused,
    ServerFault,
    TooManyRequests,
    Unreachable,
    UnreadableAnswer,
)
from nearstream_client.messages import (
    Accepted,
    Explanation,
    ForgetReceipt,
    IndexSummary,
    Item,
    Move,
    Neighbour,
    Profile,
    ProfileSummary,
    Reason,
    RecentItem,
    RecommendationList,
    Source,
    SupposedList,
    UserParts,
    WhatIf,
    Written,
)
from nearstream_client.retry import Retry

__all__ = [
    "EVENTS_MAX",
    "LEFT_OUT_ITEMS_MAX",
    "SUPPOSED_EVENTS_MAX",
    "USERS_MAX",
    "Accepted",
    "AsyncClient",
    "BadRequest",
    "Client",
    "Conflict",
    "Explanation",
    "ForgetReceipt",
    "IndexSummary",
    "Item",
    "Move",
    "NearstreamError",
    "Neighbour",
    "NotAllowed",
    "NotFound",
    "NotReady",
    "Part",
    "Profile",
    "ProfileSummary",
    "Reason",
    "RecentItem",
    "RecommendationList",
    "Refused",
    "Retry",
    "ServerFault",
    "Source",
    "SupposedList",
    "TooManyRequests",
    "Unreachable",
    "UnreadableAnswer",
    "UserParts",
    "WhatIf",
    "Written",
]
