"""How findings become incidents: situations, grouping, context, verdicts, and an incident's life."""
