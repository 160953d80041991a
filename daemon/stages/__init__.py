"""The processes: each wires one tier or collector set to the bus, the clock and the status file."""
