"""The clients against `nearstream dashboard`, a worker and a real Kafka; nothing is faked."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from nearstream_client import BadRequest, Client, NotFound, UserParts

from streams.kafka.processes import free_ports
from tests.unit.clients.guide import PACKAGE, ROOT, examples, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nearstream_client import RecommendationList

    from streams.kafka.broker import EmbeddedKafka

pytestmark = pytest.mark.kafka
LIST_S_MAX = 60.0
POLL_S = 0.1
ITEMS = ["red-shoes", "blue-shoes", "hat", "scarf", "coat"]


@contextlib.contextmanager
def program(*words: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """A `nearstream …` that runs while the block does."""
    with log.open("w") as errors:
        command = [sys.executable, "-m", "streams", *words]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def url(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an API with a worker behind it."""
    folder = tmp_path_factory.mktemp("clients-real")
    environment = {
        **os.environ,
        "NEARSTREAM_BOOTSTRAP": kafka.bootstrap,
        "NEARSTREAM_PREFIX": "clients-real.",
        "NEARSTREAM_GROUP": "clients-real",
        "NEARSTREAM_DATA_DIR": str(folder),
        "NEARSTREAM_WEB_PORT": str(free_ports(1)[0]),
        "OMP_NUM_THREADS": "1",
    }
    create = [sys.executable, "-m", "streams", "topics", "create", "--partitions", "2", "--replication", "1"]
    subprocess.run(create, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=60)
    with (
        program("worker", environment=environment, log=folder / "worker.log"),
        program("dashboard", "--port", "0", environment=environment, log=folder / "dashboard.log") as page,
    ):
        assert page.stdout is not None
        address = page.stdout.readline().strip()
        assert address.startswith("http://"), (folder / "dashboard.log").read_text()
        yield address.rstrip("/")


def event(user_id: str, item_id: str) -> dict[str, object]:
    """A view, now."""
    return {"user_id": user_id, "item_id": item_id, "type": "view", "timestamp": int(time.time() * 1000)}


def first_list(client: Client, user_id: str) -> RecommendationList:
    """The first list that is pushed."""
    with closing(client.stream(user_id)) as lists:
        return next(lists)


def until_forgotten(client: Client, user_id: str) -> str:
    """Asks for the list until there is none any more; returns the server's sentence."""
    ends_at = time.monotonic() + LIST_S_MAX
    while time.monotonic() < ends_at:
        try:
            client.list(user_id)
        except NotFound as error:
            return str(error)
        time.sleep(POLL_S)
    raise AssertionError(f"the list was still there after {LIST_S_MAX:g} s")


def test_events_become_lists(url: str) -> None:
    """Events sent by the client come back as a pushed list, and every other call tells of the same list."""
    with Client(url, timeout_s=LIST_S_MAX) as client:
        for user_id in ("bob", "cid"):  # one after the other, so that ada's list knows what they had
            client.send_events([event(user_id, item) for item in ITEMS])
            first_list(client, user_id)
        assert client.send_events([event("ada", item) for item in ITEMS[:2]]).accepted == 2
        pushed = first_list(client, "ada")
        assert {item.item_id for item in pushed.items} <= set(ITEMS[2:])
        assert client.list("ada") == pushed
        assert client.neighbours("ada") == pushed.neighbours
        users = client.many(["ada", "nobody"], ["list", "neighbours"])
        assert users == {"ada": UserParts(list=pushed, neighbours=pushed.neighbours), "nobody": None}
        found = client.explain("ada", pushed.items[0].item_id)
        assert (found.rec_id, found.rank, found.score) == (pushed.rec_id, 1, pushed.items[0].score)
        assert [reason.share for reason in found.reasons] == [reason.share for reason in pushed.items[0].reasons]
        assert all(reason.sentence for reason in found.reasons)
        profile = client.profile("ada")
        assert (profile.events, [item.item_id for item in profile.recent_items]) == (pushed.profile.events, ITEMS[:2])


def test_a_refused_event_is_named(url: str) -> None:
    """One wrong event of a request is named by place and reason, and none of them counts."""
    with Client(url, timeout_s=LIST_S_MAX) as client:
        with pytest.raises(BadRequest) as refused:
            client.send_events([event("dee", "hat"), {**event("dee", "hat"), "type": "stare"}])
        assert refused.value.index == 1
        assert refused.value.reason
        with pytest.raises(NotFound, match="no list of this user"):
            client.list("dee")


def test_typescript_does_the_same(url: str, run_typescript_example: Callable[[str], str]) -> None:
    """The documented TypeScript sends an event, gets a list pushed, and reads the server's sentence."""
    lines = run_typescript_example(url).splitlines()
    assert lines[-1].startswith("There is no profile of this user")


def test_the_guide_is_true_and_ends_in_forgetting(url: str) -> None:
    """Both documented Python programs run against the real thing; the second forgets ada, and she is gone."""
    blocking, awaited = examples("python", url)
    run(sys.executable, "-W", "error", "-c", awaited, cwd=PACKAGE)
    said = run(sys.executable, "-W", "error", "-c", blocking, cwd=PACKAGE).splitlines()
    assert int(said[-1]) > time.time() * 1000
    with Client(url, timeout_s=LIST_S_MAX) as client:
        assert until_forgotten(client, "ada").startswith("There is no list of this user")
