"""What is kept: the SQLite store, its readers and the telemetry segments."""
