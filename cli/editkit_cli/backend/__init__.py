"""The seam between commands and whatever does the work.

===========  ====================================================================================
base         the protocol: the verbs of a history and of a model; failover between two backends
local        this process, on the store's file
remote       the server that holds the store
opening      decides which of them a command gets
chat         the protocol of streamed answers; ``local_chat`` and ``remote_chat`` implement it
operations   changes made through a server: sent once, then awaited
===========  ====================================================================================

A new verb takes five files: ``base``, ``local``, ``remote``, its command, and its route. mypy fails
until all backends have it.
"""
