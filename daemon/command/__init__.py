"""The command line; only this package imports typer, rich and pydantic."""
