"""The DuckDB file and the files next to it: opening, locking, writing, copying, querying."""
