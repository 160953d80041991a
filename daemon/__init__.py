"""The caretaker of the house: collects a host's telemetry, judges it and tells the operator."""
