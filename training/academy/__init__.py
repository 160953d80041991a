"""The academy: documents become a small specialist that answers, cites and knows its limits."""
