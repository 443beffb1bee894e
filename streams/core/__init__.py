"""The pure heart: events, profiles, the updater and the ports. No sockets, clock, environment or torch."""
