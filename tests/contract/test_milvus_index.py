"""MilvusIndex on the embedded Milvus Lite: every promise of a VectorIndex, and what a server adds."""

from __future__ import annotations

import itertools
import socket
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from index.errors import DimensionMismatch, EmptyIndex, InvalidFilter, InvalidNeighbours, RejectReason, UnknownId
from index.milvus import MilvusIndex
from index.milvus_collection import IndexRefused, IndexUnavailable, MilvusConfig, MilvusNotInstalled
from index.results import Floats, Matches, RejectedRow, UpsertReport
from tests.contract import test_vector_index as contract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from streams.core.ports import VectorIndex

DIM = contract.DIM
PROMISES = [getattr(contract, name) for name in dir(contract) if name.startswith("test_")]
directions = contract.directions
collections = (f"c{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where one embedded server keeps the collections of all tests; it stops with the module."""
    pytest.importorskip("pymilvus", reason="pymilvus is not installed: pip install 'nearstream[milvus]'")
    server = pytest.importorskip(
        "milvus_lite.server_manager", reason="milvus-lite is not installed: install the dependency group dev"
    ).server_manager_instance
    path = tmp_path_factory.mktemp("milvus") / "lite.db"
    yield path
    server.release_server(str(path))


@pytest.fixture
def config(database: Path) -> MilvusConfig:
    """A collection of its own that is searched exactly."""
    return MilvusConfig(dim=DIM, uri=str(database), collection=next(collections), index_type="FLAT")


@pytest.fixture
def index(config: MilvusConfig) -> Iterator[MilvusIndex]:
    with MilvusIndex(config) as made:
        yield made


def with_bounds(config: MilvusConfig, **bounds: Any) -> MilvusConfig:
    return MilvusConfig(**{name: getattr(config, name) for name in config.__dataclass_fields__} | bounds)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_every_promise_of_an_index_holds(promise: Callable[[VectorIndex], None], index: MilvusIndex) -> None:
    """The contract suite's own functions, on a collection instead of memory."""
    promise(index)


def test_an_upsert_reports_what_became_of_each_row(index: MilvusIndex) -> None:
    """Added and moved count distinct ids; bad rows come back by position and leave what was stored as it was."""
    vectors = directions(1, 5)
    vectors[1, 0], vectors[2] = np.nan, 0.0
    assert index.upsert(["a", "b", "c", "d", "a"], vectors) == UpsertReport(
        2, 0, (RejectedRow(1, RejectReason.NON_FINITE), RejectedRow(2, RejectReason.ZERO_NORM))
    )
    assert index.upsert(["a", "e"], np.stack([vectors[1], vectors[0]]))[:2] == (1, 0)
    np.testing.assert_allclose(index.vector("a"), vectors[4], atol=1e-6)
    assert index.upsert(["a", "f"], directions(2, 2))[:2] == (1, 1)


def test_ids_come_back_as_they_were_given(index: MilvusIndex) -> None:
    """Strings and ints keep their kind, whatever is in them: quotes and expressions are only characters."""
    ids = [7, "7", -3, 2**70, "", "naïve\0", "'] or pk != ''", 'x" \\', "\ud800", "%41", "u 1/ä?"]
    vectors = directions(3, len(ids))
    index.upsert(ids, vectors)
    found = index.search(vectors, 1).ids[:, 0].tolist()
    assert found == ids
    assert [type(vector_id) for vector_id in found] == [type(vector_id) for vector_id in ids]
    assert sorted(index.ids(), key=repr) == sorted(ids, key=repr)
    assert index.remove(["'] or pk != ''", "8"]) == 1
    assert len(index) == len(ids) - 1


def test_removal_counts_what_was_there(index: MilvusIndex) -> None:
    """Twice named counts once, unknown ids nothing, in `remove` and in `forget`."""
    vectors = directions(4, 10)
    index.upsert(range(10), vectors)
    assert index.remove([3, 3, 4, 99]) == 2
    assert index.forget([5, 99]) == 1
    assert index.forget([99]) == 0
    assert [vector_id in index for vector_id in (3, 5, 6)] == [False, False, True]
    assert not {3, 4, 5} & set(index.search(vectors, 10).ids.ravel().tolist())


def test_forgetting_holds_where_the_server_will_not_compact(
    index: MilvusIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush too soon after the last is turned away: the error says so, and the ids are gone all the same."""

    def too_soon(*args: Any, **options: Any) -> None:
        raise import_module("pymilvus").MilvusException(8, "rate limit exceeded[rate=0.1]")

    index.upsert(range(3), directions(18, 3))
    monkeypatch.setattr(index._collection._client, "flush", too_soon)
    with pytest.raises(IndexUnavailable, match="rate limit"):
        index.forget([1])
    assert sorted(index.ids(), key=repr) == [0, 2]


def test_vectors_are_read_in_the_order_asked(index: MilvusIndex) -> None:
    """`vectors` follows its ids, repeated ones too; the first unknown id is named."""
    vectors = directions(5, 4)
    index.upsert(range(4), 5 * vectors)
    np.testing.assert_allclose(index.vectors([2, 0, 2]), vectors[[2, 0, 2]], atol=1e-6)
    assert index.vectors([]).shape == (0, DIM)
    with pytest.raises(UnknownId, match="under the id 'x'"):
        index.vectors([1, "x", "y"])


def test_an_excluded_id_gives_way_to_the_next(index: MilvusIndex) -> None:
    """Each query misses its own excluded id only, and still gets k."""
    vectors = directions(6, 30)
    index.upsert(range(30), vectors)
    plain = index.search(vectors[:3], 6).ids.tolist()
    matches = index.search(vectors[:3], 5, exclude=[0, None, "0"])
    assert matches.ids.tolist() == [plain[0][1:], plain[1][:5], plain[2][:5]]


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda index: index.search(np.ones((1, DIM), np.float32), 16_385), InvalidNeighbours, "16384"),
        (lambda index: index.search(np.ones((1, DIM), np.float32), 16_384, exclude=[1]), InvalidNeighbours, "16384"),
        (lambda index: index.search(np.ones((2, DIM), np.float32), 1, exclude=[1]), InvalidFilter, "got 1 for 2"),
        (lambda index: index.search(np.ones((1, DIM), np.float32), 1, filter=np.ones(1, bool)), InvalidFilter, "slots"),
        (lambda index: index.upsert(["x" * 4096], np.ones((1, DIM), np.float32)), IndexRefused, "got 4097: sxx"),
        (lambda index: index.upsert([1.5], np.ones((1, DIM), np.float32)), TypeError, "float"),
        (lambda index: index.check_recall(rng=np.random.default_rng(0)), EmptyIndex, "got one without"),
    ],
    ids=["k", "k-and-exclude", "exclude", "filter", "long-id", "no-id", "recall-of-nothing"],
)
def test_what_milvus_cannot_do_is_refused(
    index: MilvusIndex, call: Callable[[MilvusIndex], object], error: type[Exception], says: str
) -> None:
    """Limits of the server and what needs slots are errors before anything is sent."""
    with pytest.raises(error, match=says):
        call(index)
    assert len(index) == 0


def test_large_calls_go_in_bounded_parts(config: MilvusConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """No call carries more rows or queries than the bounds say, and the answers are those of one call."""
    vectors = directions(7, 50)
    with MilvusIndex(with_bounds(config, rows_per_call_max=7, queries_per_call_max=4)) as index:
        sent: dict[str, list[int]] = {"upsert": [], "search": [], "delete": []}
        client = index._collection._client
        for method, size in (("upsert", "data"), ("search", "data"), ("delete", "ids")):
            monkeypatch.setattr(client, method, counting(sent[method], getattr(client, method), size))
        assert index.upsert(range(50), vectors)[:2] == (50, 0)
        assert index.search(vectors, 3).ids[:, 0].tolist() == list(range(50))
        assert index.remove(range(40, 60)) == 10
        assert sorted(index.ids(), key=repr) == sorted(range(40), key=repr)
        assert index.vectors(range(40)).shape == (40, DIM)
    assert sent == {"upsert": [7] * 7 + [1], "search": [4] * 12 + [2], "delete": [7, 3]}


def counting(sizes: list[int], call: Callable[..., Any], argument: str) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        sizes.append(len(kwargs[argument]))
        return call(*args, **kwargs)

    return counted


@pytest.mark.parametrize(
    ("dim", "limit", "queries", "rows"),
    [(64, 11, 256, 1000), (64, 16_384, 1, 1000), (32_768, 1, 248, 248), (10_000_000, 1, 1, 1)],
)
def test_bounds_follow_the_size_of_a_message(dim: int, limit: int, queries: int, rows: int) -> None:
    """Many neighbours or long vectors leave room for fewer queries a call, never for none."""
    config = MilvusConfig(dim=dim)
    assert config.queries_per_call(limit) == queries
    assert config.rows_per_call == rows


def test_a_second_client_sees_the_same_collection(config: MilvusConfig) -> None:
    """What one object stored another finds, after the first has closed; closing twice is no error."""
    vectors = directions(8, 20)
    with MilvusIndex(config) as first:
        first.upsert(range(20), vectors)
        first.close()
    with MilvusIndex(config) as second:
        assert len(second) == 20
        assert second.search(vectors, 1).ids[:, 0].tolist() == list(range(20))
        assert second.stats()[:4] == (20, 20, 0, 0)


def test_the_collection_is_made_as_the_settings_say(config: MilvusConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosine is the metric of a new collection, its index that of the settings."""
    sent: list[dict[str, Any]] = []
    maker = import_module("pymilvus").MilvusClient
    create_index = maker.create_index

    def recorded(client: Any, collection: str, index_params: Any, **options: Any) -> None:
        sent.extend(index.get_index_configs() for index in index_params)
        create_index(client, collection, index_params, **options)

    # Milvus Lite forgets M and efConstruction, so what was sent is looked at as well
    monkeypatch.setattr(maker, "create_index", recorded)
    wanted = with_bounds(config, index_type="HNSW", index_params={"M": 8, "efConstruction": 40}, consistency="Bounded")
    with MilvusIndex(wanted) as index:
        client = index._collection._client
        made = client.describe_index(config.collection, "vector")
        assert (made["metric_type"], made["index_type"]) == ("COSINE", "HNSW")
        assert index.stats().tier == "hnsw"
    assert sent == [{"index_type": "HNSW", "metric_type": "COSINE", "M": 8, "efConstruction": 40}]


def test_every_read_asks_for_the_consistency_of_the_settings(
    config: MilvusConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Search and reads carry the level and the search parameters; Milvus Lite, always strong, would hide it."""
    asked: list[dict[str, Any]] = []
    with MilvusIndex(with_bounds(config, consistency="Bounded", search_params={"ef": 77})) as index:
        client = index._collection._client
        for method in ("search", "query"):
            monkeypatch.setattr(client, method, recording(asked, getattr(client, method)))
        index.search(directions(17, 1), 1)
        assert len(index) == 0
    assert [options["consistency_level"] for options in asked] == ["Bounded", "Bounded"]
    assert asked[0]["search_params"] == {"metric_type": "COSINE", "params": {"ef": 77}}


def recording(asked: list[dict[str, Any]], call: Callable[..., Any]) -> Callable[..., Any]:
    def recorded(*args: Any, **options: Any) -> Any:
        asked.append(options)
        return call(*args, **options)

    return recorded


def test_a_collection_of_other_vectors_is_refused(config: MilvusConfig, index: MilvusIndex) -> None:
    """Opening it with another dimension is an error that names both; a foreign collection is named as such."""
    with pytest.raises(DimensionMismatch, match=r"16 numbers, this index takes 8"):
        MilvusIndex(with_bounds(config, dim=8))
    client = index._collection._client
    client.create_collection("foreign", dimension=DIM)
    with pytest.raises(IndexRefused, match="made for something else"):
        MilvusIndex(with_bounds(config, collection="foreign"))


def test_the_exact_answer_judges_an_approximate_one(config: MilvusConfig) -> None:
    """`exact` is brute force over every page; recall is measured against it."""
    vectors, queries = directions(9, 300), directions(10, 7)
    queries[3] = 0.0
    with MilvusIndex(with_bounds(config, index_type="HNSW", rows_per_call_max=64)) as index:
        index.upsert(range(300), vectors)
        exact = index.exact(queries, 5)
        expected = np.argsort(-(queries @ vectors.T), axis=1)[:, :5].astype(object)
        expected[3] = None
        assert exact.ids.tolist() == expected.tolist()
        assert np.isnan(exact.similarities).any(axis=1).tolist() == [False] * 3 + [True] + [False] * 3
        report = index.check_recall(50, rng=np.random.default_rng(11))
    assert report == (50, 1.0, 0.0)


def test_recall_counts_what_the_search_missed(index: MilvusIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that leaves out the nearest half is found out."""
    vectors = directions(12, 100)
    index.upsert(range(100), vectors)
    search = index.search

    def second_half(asked: Floats, k: int) -> Matches:
        ids, similarities = search(asked, 2 * k)
        return Matches(ids[:, k // 2 : k + k // 2], similarities[:, k // 2 : k + k // 2])

    monkeypatch.setattr(index, "search", second_half)
    assert index.check_recall(20, rng=np.random.default_rng(13)) == (20, 0.5, 1.0)


def test_a_server_that_went_away_is_a_bounded_error(tmp_path: Path, config: MilvusConfig) -> None:
    """Calls fail within their timeout and say where the server should be; writes may be repeated when it is back."""
    server = import_module("milvus_lite.server_manager").server_manager_instance
    vectors = directions(14, 3)
    uri = str(tmp_path / "away.db")
    with MilvusIndex(with_bounds(config, uri=uri, timeout_s=0.5)) as index:
        index.upsert(range(3), vectors)
        server.release_server(uri)
        started = monotonic()
        for call in (lambda: index.upsert([1], vectors[:1]), lambda: index.search(vectors, 1), lambda: len(index)):
            with pytest.raises(IndexUnavailable, match=r"away\.db did not serve the call within 0\.5 s"):
                call()
        assert monotonic() - started < 20
    with MilvusIndex(with_bounds(config, uri=uri)) as index:
        assert index.upsert([0, 1, 2, 3], directions(15, 4))[:2] == (1, 3)
    server.release_server(uri)


def test_nobody_at_the_address_is_an_error_without_the_password(config: MilvusConfig) -> None:
    """The constructor says that nothing answers, and prints no secret."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nobody = with_bounds(config, uri=f"http://root:hush@127.0.0.1:{port}", token="root:hush", timeout_s=0.5)
    with pytest.raises(IndexUnavailable) as caught:
        MilvusIndex(nobody)
    assert f"http://127.0.0.1:{port} did not serve the call" in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "bounds", [{"dim": 0}, {"rows_per_call_max": 0}, {"queries_per_call_max": 0}, {"timeout_s": 0}]
)
def test_senseless_settings_are_refused(bounds: dict[str, Any]) -> None:
    """A number out of range is named."""
    with pytest.raises(ValueError, match=next(iter(bounds))):
        MilvusConfig(**bounds)


def test_a_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pymilvus the error says what to install."""

    def missing(name: str) -> object:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("index.milvus_collection.import_module", missing)
    with pytest.raises(MilvusNotInstalled, match=r"nearstream\[milvus\]"):
        MilvusIndex(MilvusConfig())
