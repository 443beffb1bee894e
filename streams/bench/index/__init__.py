"""The index under change, against exact search, a fresh build and rivals, in one run."""
