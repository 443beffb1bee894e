"""One Milvus collection of keys and vectors: its settings, its connection, and the errors of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal
from urllib.parse import urlsplit

from index.errors import DimensionMismatch, VectorIndexError
from index.results import Floats

KEY = "pk"
VECTOR = "vector"
KEY_LENGTH_MAX = 4096
"""Characters of a primary key: 256 characters of any script, percent-encoded, and the letter of the kind."""
PAGE_ROWS_MAX = 16_384
REQUEST_BYTES_MAX = 32 * 2**20
"""Half of what a Milvus proxy takes in one message by default."""
RESPONSE_BYTES_MAX = 128 * 2**20
"""Half of what it sends in one."""
SERVER_UNAVAILABLE = 2
SERVER_RATE_LIMIT = 8


class IndexUnavailable(VectorIndexError, ConnectionError):
    """The server of a remote index did not answer in time, or turned the call away for now: repeat it later."""


class IndexRefused(VectorIndexError, RuntimeError):
    """The server of a remote index answered that it will not do this; repeating the call changes nothing."""


class MilvusNotInstalled(ImportError):
    """The client library is an extra: `pip install 'nearstream[milvus]'`."""


@dataclass(frozen=True)
class MilvusConfig:
    """Where the collection is and how it is asked.

    Raises:
        ValueError: a number is outside its range; the message names it.
    """

    dim: int = 64
    """Length of a vector."""
    uri: str = "http://127.0.0.1:19530"
    """Address of the server, or a path that ends in `.db` for the embedded Milvus Lite (tests, one process)."""
    token: str = field(default="", repr=False)
    """`user:password` or an API key; empty for none."""
    database: str = ""
    """Empty for the server's default."""
    collection: str = "nearstream_profiles"
    """Made when it is not there."""
    index_type: str = "AUTOINDEX"
    """What Milvus builds over a new collection; `FLAT` is exact."""
    index_params: Mapping[str, int] = field(default_factory=dict)
    """Of a new collection, e.g. `{"M": 16, "efConstruction": 100}` for `HNSW`."""
    search_params: Mapping[str, int] = field(default_factory=dict)
    """Of every query, e.g. `{"ef": 96}`."""
    consistency: Literal["Strong", "Session", "Bounded", "Eventually"] = "Strong"
    """Only under `Strong` does the next search see every write; Milvus waits some 200 ms a query for that."""
    timeout_s: float = 10.0
    """For one call, its retries included."""
    rows_per_call_max: int = 1000
    """Rows of one upsert, removal or read."""
    queries_per_call_max: int = 256
    """Queries of one search."""

    def __post_init__(self) -> None:
        for name in ("dim", "rows_per_call_max", "queries_per_call_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s must be above 0, got {self.timeout_s}.")

    @property
    def rows_per_call(self) -> int:
        """Rows that fit one message, and a page of the client."""
        return max(1, min(self.rows_per_call_max, PAGE_ROWS_MAX, REQUEST_BYTES_MAX // self._row_bytes))

    def queries_per_call(self, k: int) -> int:
        """Queries that fit one message, and whose answers of k keys do."""
        answers = RESPONSE_BYTES_MAX // (k * (KEY_LENGTH_MAX + 4))
        return max(1, min(self.queries_per_call_max, REQUEST_BYTES_MAX // self._row_bytes, answers))

    @property
    def _row_bytes(self) -> int:
        return 4 * self.dim + KEY_LENGTH_MAX


class Collection:
    """The collection on the server: every call is bounded in time, and fails with an error of the index."""

    def __init__(self, config: MilvusConfig) -> None:
        self._config = config
        try:
            self._pymilvus: Any = import_module("pymilvus")
            self._grpc: Any = import_module("grpc")
        except ImportError as error:
            raise MilvusNotInstalled("pymilvus is not installed; pip install 'nearstream[milvus]'.") from error
        self._client: Any = None
        self._client = self._bounded(self._connect)

    def open(self) -> None:
        """Finds the collection, or makes it, and has the server load it."""
        if self.ask("has_collection"):
            self._check()
        else:
            self._create()
        self.ask("load_collection")

    def ask(self, method: str, **arguments: Any) -> Any:
        """Calls the client's `method` for the collection."""
        if method == "query":
            arguments["consistency_level"] = self._config.consistency
        call = getattr(self._client, method)
        return self._bounded(lambda: call(self._config.collection, timeout=self._config.timeout_s, **arguments))

    def search(self, queries: list[Floats], limit: int) -> Sequence[Sequence[Mapping[str, Any]]]:
        """The hits of each query, best first."""
        hits: Sequence[Sequence[Mapping[str, Any]]] = self.ask(
            "search",
            data=queries,
            limit=limit,
            anns_field=VECTOR,
            output_fields=[KEY],
            search_params={"metric_type": "COSINE", "params": dict(self._config.search_params)},
            consistency_level=self._config.consistency,
        )
        return hits

    def pages(self, fields: list[str]) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Everything stored, in the order of the keys."""
        pages = self.ask(
            "query_iterator",
            batch_size=self._config.rows_per_call,
            output_fields=fields,
            consistency_level=self._config.consistency,
        )
        try:
            while page := self._bounded(pages.next):
                yield page
        finally:
            pages.close()

    def close(self) -> None:
        """Closes the connection; idempotent."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connect(self) -> Any:
        config = self._config
        return self._pymilvus.MilvusClient(
            uri=config.uri,
            token=config.token,
            db_name=config.database,
            timeout=config.timeout_s,
            dedicated=True,  # a shared connection would outlive close(), or end with somebody else's
        )

    def _check(self) -> None:
        fields = {row["name"]: row for row in self.ask("describe_collection")["fields"]}
        if set(fields) != {KEY, VECTOR}:
            raise IndexRefused(
                f"The collection {self._config.collection!r} holds the fields {sorted(fields)}, expected "
                f"{sorted((KEY, VECTOR))}: it was made for something else; choose another name."
            )
        if (dim := int(fields[VECTOR]["params"]["dim"])) != self._config.dim:
            raise DimensionMismatch(
                f"The collection {self._config.collection!r} holds vectors of {dim} numbers, this index takes "
                f"{self._config.dim}; choose another name, or drop it."
            )

    def _create(self) -> None:
        types, client = self._pymilvus.DataType, self._pymilvus.MilvusClient
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(KEY, types.VARCHAR, is_primary=True, max_length=KEY_LENGTH_MAX)
        schema.add_field(VECTOR, types.FLOAT_VECTOR, dim=self._config.dim)
        indexes = client.prepare_index_params()
        indexes.add_index(
            VECTOR,
            index_type=self._config.index_type,
            metric_type="COSINE",
            params=dict(self._config.index_params),
        )
        self.ask("create_collection", schema=schema, consistency_level=self._config.consistency)
        # without `sync` the client looks every half second, for as long as it takes: a float timeout does not end it
        self.ask("create_index", index_params=indexes, sync=False)

    def _bounded(self, call: Callable[[], Any]) -> Any:
        """What the call returns, with the client's errors told apart: later, or never."""
        try:
            return call()
        except self._grpc.RpcError as error:
            raise self._verdict(self._is_away(error.code()), f"{error.code().name}: {error.details()}") from error
        except self._pymilvus.MilvusException as error:
            # where the client itself gives up waiting, only its message says so
            away = error.retriable or self._is_away(error.code) or "timeout" in error.message
            raise self._verdict(away, error.message) from error

    def _is_away(self, code: object) -> bool:
        status = self._grpc.StatusCode
        return code in (status.UNAVAILABLE, status.DEADLINE_EXCEEDED, SERVER_UNAVAILABLE, SERVER_RATE_LIMIT)

    def _verdict(self, away: bool, reason: str) -> VectorIndexError:
        config = self._config
        if away:
            return IndexUnavailable(
                f"Milvus at {address(config.uri)} did not serve the call within {config.timeout_s:g} s ({reason}). "
                "Check that it runs and can be reached, then repeat the call."
            )
        return IndexRefused(
            f"Milvus at {address(config.uri)} refused a call for the collection {config.collection!r}: {reason}"
        )


def address(uri: str) -> str:
    """The address without the password that it may hold."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else uri
