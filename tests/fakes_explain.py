"""What the topics hold once a worker has moved two users: for `nearstream explain`."""

from __future__ import annotations

from collections.abc import Sequence

from encoder import UserEncoder
from encoder.baselines import DecayedMean
from streams.cli.explain_report import Found
from streams.config import DEFAULT_TYPE_WEIGHTS
from streams.core.catalogue import Catalogue
from streams.core.events import Event, Item, User
from streams.core.profile import ProfileLayout, ProfileStore
from streams.core.recommendations import (
    BecauseOf,
    IndexSummary,
    Neighbour,
    ProfileSummary,
    Recommendation,
    RecommendedItem,
    SimilarUsers,
    Source,
)
from streams.core.updater import ProfileUpdater
from streams.kafka.changelog import decode_profile, encode_profiles
from tests.fakes_core import DIM, START_MS, FakeItems, event, offsets

RECENT = 6
ITEMS = {
    "shoe": Item("shoe", title="Red shoe"),
    "boot": Item("boot", title="Brown boot"),
    "sock": Item("sock", title="Sock"),
    "lamp": Item("lamp", title="Lamp", available=False),
}
MEAN = UserEncoder(DecayedMean(DIM, 86_400.0), FakeItems())
HISTORY = [event(item_id=item, at_s=60 * place) for place, item in enumerate(("sock", "boot", "sock", "lamp"))]


def written_profiles(model: UserEncoder, events: list[Event], said: Sequence[str] = ()) -> dict[str, bytes]:
    """What a worker would have written, by user; `u1` said these tokens before the first event."""
    catalogue = Catalogue(model.items)
    catalogue.put(list(ITEMS.values()))
    store = ProfileStore(ProfileLayout(model.profiles.state_width, RECENT, 4))
    store.facts.put([User("u1", attributes=dict(token.split(":", 1) for token in said))])
    update = ProfileUpdater(store, catalogue, model.profiles, DEFAULT_TYPE_WEIGHTS, 5).prepare(
        events, offsets(len(events)), 0
    )
    return dict(zip(update.users, encode_profiles(update, catalogue, model.profiles.name), strict=True))


def list_of(items: list[RecommendedItem], neighbours: tuple[str, ...] = ("u2",)) -> Recommendation:
    """The last list of `u1`."""
    return Recommendation(
        rec_id="r1",
        user_id="u1",
        generated_at=START_MS,
        cause="event",
        source=Source("events", 0, 3, START_MS),
        profile=ProfileSummary(4, 4, "any"),
        index=IndexSummary(1, 2),
        neighbours=[Neighbour(user_id, 0.5) for user_id in neighbours],
        items=items,
    )


def found_of(model: UserEncoder, events: list[Event] | None = None, said: Sequence[str] = ()) -> Found:
    """`u1`, who said these tokens, with a history, `u2` near, who has the shoe."""
    everything = [*(HISTORY if events is None else events), event("u2", "shoe"), event("u2", "boot")]
    records = {user: decode_profile(value) for user, value in written_profiles(model, everything, said).items()}
    shoe = RecommendedItem("shoe", 0.8, [SimilarUsers(["u2"], 0.6), BecauseOf("boot", 0.4)])
    list_ = list_of([RecommendedItem("hat", 0.9, []), shoe])
    return Found(records["u1"], list_, ITEMS, frozenset(), {"u2": records["u2"]}, tuple(said))
