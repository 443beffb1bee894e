"""Measurements of the whole road on this machine, against a rival in the same run. They print figures, not verdicts
of a test: timings belong to a machine and an hour."""
