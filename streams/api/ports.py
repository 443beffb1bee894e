"""What the API needs from Kafka's side; `streams.kafka.api_backend` and `tests.fakes_api` give it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from streams.core.recommendations import Reason
    from streams.core.serving import (
        ForgetReceipt,
        Place,
        RefusedEvent,
        ReplayedLetters,
        ServedProfile,
        WaitingLetters,
    )
    from streams.core.what_if import WhatIfQuestion, WhatIfRefusal

    ReasonWords = Callable[[Reason], str]
    """A reason as a sentence."""


class Backend(Protocol):
    """Every method that waits raises BrokerUnavailable while the topics are still read or Kafka does not answer."""

    @property
    def is_ready(self) -> bool:
        """Whether the topics were read once, so that what is not found is not there."""
        ...

    async def newest_list(self, user_id: str) -> bytes | None:
        """The user's newest list as published; None: there is none."""
        ...

    async def profile(self, user_id: str) -> ServedProfile | None:
        """The user's profile as last committed; None: there is none."""
        ...

    def watch_list(self, user_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Calls `wake` after each new list of the user; returns what ends that."""
        ...

    async def what_if(self, user_id: str, question: WhatIfQuestion) -> bytes | WhatIfRefusal:
        """A worker's answer, a `WhatIf` as JSON. Raises WorkerUnavailable while none answers."""
        ...

    async def send_events(self, values: Sequence[bytes]) -> list[Place] | RefusedEvent:
        """Sends events; returns where they lie once all replicas have them, or why one of them cannot count."""
        ...

    async def forget(self, user_id: str) -> ForgetReceipt:
        """Asks the workers to forget the user; returns once all replicas have the request."""
        ...

    async def dead_letters(self, reason: str | None, letters_max: int) -> WaitingLetters:
        """The newest dead letters that wait, of one reason or of all."""
        ...

    async def replay(self, places: Collection[Place], value: tuple[bytes, bytes] | None) -> ReplayedLetters:
        """Sends dead letters back; with `value` as key and value instead of their own. May raise PartitionLost."""
        ...
