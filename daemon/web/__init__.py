"""The operator's page: reads the store and the telemetry, and passes verdicts on to the daemon."""
