"""What a person looks at in a browser or reads in a ticket: incidents with evidence, plots and words."""
