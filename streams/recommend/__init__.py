"""Pure ranking: profile and neighbours in, a list with reasons out. Arrays only; no I/O, clock or environment."""
