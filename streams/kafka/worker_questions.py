"""Asks a running worker what a user's list would be, over its web port."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import msgspec

from streams.core.errors import WorkerUnavailable
from streams.core.what_if import RefusalReason, UserQuestion, WhatIfQuestion, WhatIfRefusal

if TYPE_CHECKING:
    from streams.config import Settings
    from streams.kafka.worker_directory import WorkerAddress, WorkerDirectory

WORKERS_ASKED_MAX = 3
WORKER_S_MAX = 4.0
CONNECT_S_MAX = 1.0
ANSWER_BYTES_MAX = 4_000_000
PATH = "/what-if"


class _Problem(msgspec.Struct):
    error: str = ""
    reason: RefusalReason | None = None


async def ask_workers(
    settings: Settings, directory: WorkerDirectory, user_id: str, question: WhatIfQuestion
) -> bytes | WhatIfRefusal:
    """The answer, a `WhatIf` as JSON, of the worker that owns the user's partition; of another one if it is silent.

    Every worker knows every profile; only the owner knows what the user was shown, for rules that make items pause.

    Raises:
        WorkerUnavailable: no worker runs, or none of those asked answers; the message says what each said.
        BrokerUnavailable: Kafka does not say which workers run.
    """
    workers = await directory.running(user_id)
    if not workers:
        raise WorkerUnavailable(
            f"No worker of the group {settings.group!r} runs, and only a worker can answer this. Start one with "
            "`nearstream worker`, or ask again once it has joined."
        )
    body = msgspec.json.encode(UserQuestion(user_id=user_id, without=question.without, events=question.events))
    headers = {"Content-Type": "application/json"}
    token = settings.read_token or settings.write_token
    if token is not None:
        headers["Authorization"] = f"Bearer {token.get_secret_value()}"
    timeout = aiohttp.ClientTimeout(total=WORKER_S_MAX, sock_connect=CONNECT_S_MAX)
    said = []
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        for worker in workers[:WORKERS_ASKED_MAX]:
            try:
                return await _asked(session, worker, body)
            except WorkerUnavailable as error:
                said.append(f"{worker.name}: {error}")
    raise WorkerUnavailable("No worker answers. " + " ".join(said))


async def _asked(session: aiohttp.ClientSession, worker: WorkerAddress, body: bytes) -> bytes | WhatIfRefusal:
    try:
        async with session.post(worker.url + PATH, data=body, allow_redirects=False) as response:
            answer = await response.content.read(ANSWER_BYTES_MAX)
            status = response.status
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise WorkerUnavailable(
            f"it cannot be reached at {worker.url} ({type(error).__name__}); is its NEARSTREAM_WEB_HOST an address "
            "that can be reached from here?"
        ) from error
    if status == 200:
        return answer
    try:
        problem = msgspec.json.decode(answer, type=_Problem)
    except msgspec.MsgspecError:
        problem = _Problem()
    if problem.reason is not None:
        return WhatIfRefusal(problem.reason, problem.error)
    raise WorkerUnavailable(problem.error or f"it answered {status} at {worker.url}; is it of an older version?")
