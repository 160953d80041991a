"""What a language model needs, how fast it would be, what it would cost, and what to take."""
