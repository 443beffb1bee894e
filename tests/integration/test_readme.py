"""README keeps its word: its Python runs, its commands parse, its paths exist."""

from __future__ import annotations

import ast
import asyncio
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from streams.cli import cli
from streams.cli.feed import SOURCE_OPTIONS, source_from
from streams.config import load_settings
from streams.feed import feed
from streams.kafka.broker import EmbeddedKafka
from streams.kafka.codec import decode_events, decode_recommendation
from streams.kafka.topics import create_topics
from streams.sources import open_source
from tests.benchmarks.fuzz_events import FuzzRecord
from tests.integration.storm import WorkerProcess, drained

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
README_ADDRESS = "127.0.0.1:9092"
RECIPE_S_MAX = 60.0
EVENTS = 200


def blocks(language: str) -> list[str]:
    """The code blocks of a language, in order."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [block for named, block in fenced if named == language]


def shell_lines() -> list[str]:
    """The commands of the shell blocks, without comments; a pipe over two lines is one command."""
    text = "".join(blocks("sh")).replace("|\n", "| ")
    return [line for line in (re.sub(r"\s+#.*", "", line).strip() for line in text.splitlines()) if line]


def our_commands() -> list[list[str]]:
    """Every `nearstream …` of README, in blocks and in sentences, as the words after the name."""
    inline = re.findall(r"`nearstream ([^`]+)`", README)
    in_blocks = [line.removeprefix("nearstream ") for line in shell_lines() if line.startswith("nearstream ")]
    return [shlex.split(command) for command in [*in_blocks, *inline]]


def parsed(words: list[str]) -> click.Context:
    """The context that click makes of the words, without running anything."""
    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group):
        name = rest.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"README names `nearstream {' '.join(words)}`, but there is no {name!r}"
        command = found
    return command.make_context(str(command.name), rest)


def named_paths() -> set[str]:
    """What README links to, names in backticks as a path of the repository, or draws as a tree."""
    links = {link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link}
    sentences = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
    quoted = set(re.findall(rf"`((?:{folders})/[^`\s]*)`", sentences))
    mentioned = set(re.findall(rf"(?<![\w/])((?:{folders})/[\w./-]*\w|docker-compose\.yml)", "\n".join(blocks("sh"))))
    return links | quoted | mentioned | _drawn()


def _drawn() -> set[str]:
    """Folders of the tree, whose children are indented by two blanks."""
    drawn = set()
    for tree in blocks(""):
        parent = ""
        for indent, name in re.findall(r"^( *)(\S+/)", tree, re.MULTILINE):
            parent = parent if indent else name
            drawn.add(parent + name if indent else name)
    return drawn


@pytest.mark.parametrize("words", our_commands(), ids=" ".join)
def test_every_command_parses(words: list[str]) -> None:
    """Command, arguments and flags that README names are known to the command line."""
    parsed(words)


def test_make_words_and_the_arguments_handed_on_exist(tmp_path: Path) -> None:
    """Each `make word` is one of the Makefile's; ARGS of the demo open a log of that shape."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    used = [shlex.split(line) for line in shell_lines() if line.startswith("make ")]
    assert {"demo", "test"} <= {words[1] for words in used}
    for _, word, *_rest in used:
        assert re.search(rf"^{word}:", makefile, re.MULTILINE), f"README says make {word}"
    (arguments,) = [rest[0].removeprefix("ARGS=") for _, _, *rest in used if rest]
    flags = parsed(["demo", *shlex.split(arguments)]).params
    log = tmp_path / str(flags["path"])
    log.write_text("uid,sku,ts\nada,red-shoes,1700000000000\n")
    options = {name: flags[name] for name in SOURCE_OPTIONS}
    events = list(source_from(flags["format_name"], str(log), options).events())
    assert [(e.user_id, e.item_id, e.type, e.timestamp) for e in events] == [
        ("ada", "red-shoes", "view", 1_700_000_000_000)
    ]


@pytest.mark.parametrize("path", sorted(named_paths()))
def test_every_path_exists(path: str) -> None:
    """A file or folder that README names is in the repository."""
    assert (ROOT / path).exists()


def test_enough_was_found_to_check() -> None:
    """The patterns above still find README's commands and paths, so the tests cannot pass on nothing."""
    assert {words[0] for words in our_commands()} >= {"topics", "worker", "dashboard", "tail", "show", "dlq", "digest"}
    assert {"ARCHITECTURE.md", "docs/adr", "docs/schema/", "streams/core/"} <= named_paths()


def test_the_kcat_recipe_sends_an_event_that_counts() -> None:
    """What its shell line writes is a key, a colon and an event that the worker accepts."""
    (line,) = [line for line in shell_lines() if "kcat" in line and line.startswith("echo")]
    echo, _, kcat = line.partition(" | ")
    assert "-K:" in kcat
    assert "partitioner=murmur2_random" in kcat
    written = subprocess.run(["bash", "-c", echo], check=True, capture_output=True).stdout.rstrip(b"\n")
    key, _, value = written.partition(b":")
    decoded = decode_events([FuzzRecord(key, value)], time.time_ns() // 1_000_000)
    assert decoded.rejects == []
    assert decoded.events[0].user_id == "ada"


def test_the_list_shown_is_one_of_the_schema() -> None:
    """The JSON that README shows as a list decodes as one, with both witnesses and a reason for each item."""
    (shown,) = blocks("json")
    list_ = decode_recommendation(shown.encode())
    assert (list_.profile.events, list_.source.offset) == (42, 1881)
    assert all(item.reasons for item in list_.items)


@pytest.fixture
def own_kafka(tmp_path: Path, jars_dir: Path) -> Iterator[EmbeddedKafka]:
    """A broker without other tests' topics, for the recipe uses no prefix."""
    broker = EmbeddedKafka(tmp_path, brokers=1, port=0, die_with_owner=True, jars_dir=jars_dir)
    with broker:
        yield broker


@pytest.mark.kafka
@pytest.mark.timeout(180)
async def test_the_python_recipe_produces_an_event_and_reads_the_list(own_kafka: EmbeddedKafka, tmp_path: Path) -> None:
    """Run as it stands, but for the address: it prints the user's count of events and the recommended items."""
    recipe, _ = blocks("python")
    assert recipe.count(README_ADDRESS) == 1
    settings = load_settings(bootstrap=own_kafka.bootstrap, partitions=3)
    await create_topics(settings)
    await feed(open_source("synthetic", events=EVENTS, users=20, items=30), settings)
    with WorkerProcess("worker", settings, tmp_path / "worker.log") as worker:
        worker.start()
        await drained(settings, EVENTS)
        code = recipe.replace(README_ADDRESS, own_kafka.bootstrap)
        ran = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, timeout=RECIPE_S_MAX
        )
    assert ran.returncode == 0, ran.stderr
    count, _, items = ran.stdout.partition(" ")
    assert int(count) == 1
    recommended = ast.literal_eval(items)
    assert recommended
    assert "red-shoes" not in recommended


def test_the_index_example_holds() -> None:
    """Run as it stands: its own assertion is the test."""
    _, example = blocks("python")
    ran = subprocess.run(
        [sys.executable, "-c", example], check=False, capture_output=True, text=True, timeout=RECIPE_S_MAX
    )
    assert ran.returncode == 0, ran.stderr
    assert "assert" in example
