"""Where the rows come from that the tiers' models learn, one tier a file."""
