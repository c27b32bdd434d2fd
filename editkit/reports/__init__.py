"""Self-contained HTML pages, without network access and scripts. Imports no framework."""
