"""Telemetry sources, one a file: they read everything and decide nothing."""
