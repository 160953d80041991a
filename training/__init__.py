"""Makes the models that the daemon loads; nothing in the daemon imports it."""
