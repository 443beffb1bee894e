"""The HTTP API over lists, profiles, events and dead letters, and who may use it and the page."""
