"""Measurements that need a process of their own: resident memory, and a storm that may crash."""

from __future__ import annotations

import subprocess
import sys
from typing import TypeVar

import msgspec
from threadpoolctl import threadpool_limits

from index import IndexConfig
from streams.bench.index.footprint import Footprint, measure_footprint
from streams.bench.index.storm import Storm, raise_storm
from streams.core.errors import NearstreamError

R = TypeVar("R")


class Job(msgspec.Struct, frozen=True):
    """What the process is to do, and on which vectors."""

    what: str
    kind: str
    size: int
    seed: int
    config: IndexConfig
    queries: int


def footprint_apart(job: Job) -> Footprint:
    """`measure_footprint` in a fresh process.

    Raises:
        NearstreamError: it failed; its words are on stderr.
    """
    done = _run(job)
    if done.returncode != 0:
        raise NearstreamError(f"Measuring memory failed with exit code {done.returncode}; its words are above.")
    return msgspec.json.decode(done.stdout, type=Footprint)


def storm_apart(job: Job) -> Storm:
    """`raise_storm` in a process of its own: one that dies is a failure of the storm, not of the measurement."""
    done = _run(job)
    if done.returncode != 0:
        return Storm(failures=[f"the process ended with exit code {done.returncode}"])
    return msgspec.json.decode(done.stdout, type=Storm)


def _run(job: Job) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "streams.bench.index.child"],
        input=msgspec.json.encode(job),
        stdout=subprocess.PIPE,
        check=False,
    )


def main() -> None:
    """Reads a job from standard input, writes its result to standard output."""
    threadpool_limits(1)
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    measure = raise_storm if job.what == "storm" else measure_footprint
    result = measure(job.kind, job.size, job.config, job.seed, job.queries)
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
