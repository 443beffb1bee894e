"""Log lines: one form for people, one for machines, whoever speaks."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from streams.config import load_settings
from streams.logs import configure_logging


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Other tests find logging as it was."""
    root, levels = logging.getLogger(), {name: logging.getLogger(name).level for name in ("aiokafka", "asyncio")}
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


def fail() -> None:
    """Logs an exception with its traceback."""
    try:
        int("wörds")
    except ValueError:
        logging.getLogger("streams.test").exception("it %s", "broke")


def test_machines_get_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """With level, logger, time and the traceback as text; stdout stays for results."""
    configure_logging(load_settings(log_format="json"), logging.Filter())
    fail()
    structlog.get_logger("streams.other").info("moved", partition=3)
    output = capsys.readouterr()
    first, second = (json.loads(line) for line in output.err.splitlines())
    assert (first["event"], first["level"], first["logger"]) == ("it broke", "error", "streams.test")
    assert "ValueError: invalid literal" in first["exception"]
    assert "wörds" in first["exception"]
    assert (second["event"], second["partition"], second["logger"]) == ("moved", 3, "streams.other")
    assert second["timestamp"].endswith("Z")
    assert output.out == ""


def test_people_get_a_readable_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a warning of the library about how it is set up."""
    configure_logging(load_settings(log_format="console"), logging.Filter())
    fail()
    error = capsys.readouterr().err
    assert "it broke" in error
    assert "ValueError" in error
    assert "wörds" in error


def test_only_what_is_severe_enough_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    """Libraries speak from warnings on, even when we are told to say everything."""
    configure_logging(load_settings(log_format="json", log_level="debug"), logging.Filter())
    logging.getLogger("streams.test").debug("ours")
    logging.getLogger("aiokafka.conn").info("noise")
    logging.getLogger("aiokafka.conn").warning("lost")
    configure_logging(load_settings(log_format="json", log_level="error"), logging.Filter())
    logging.getLogger("streams.test").warning("too mild")
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert events == ["ours", "lost"]


def test_the_given_filter_decides_on_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    """It is asked for our lines and for those of libraries."""
    configure_logging(load_settings(log_format="json"), logging.Filter("aiokafka"))
    logging.getLogger("aiokafka.conn").warning("lost")
    logging.getLogger("streams.test").warning("ours")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["lost"]
