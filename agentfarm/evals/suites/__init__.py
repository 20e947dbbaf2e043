"""The built-in suites, one module each with a `SUITE`."""
