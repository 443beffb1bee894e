"""Nearstream: events in, fresh neighbours and recommendations out, each event counted exactly once."""
