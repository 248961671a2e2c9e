"""What ``perdure dev`` and the tests start: a Temporal dev server, Postgres, and their supervision."""
