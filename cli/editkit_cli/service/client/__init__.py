"""The client of a server that holds a store. Needs no framework and no torch."""
