"""The DuckDB file: opened, locked, written to, copied, queried; and the files beside it."""
