"""`python -m streams` is `nearstream`."""

from streams.cli import main

main()
