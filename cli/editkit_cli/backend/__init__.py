"""The seam between commands and whatever does the work.

===========  ==================================================================================
base         the protocol: the verbs of a history and of a model
local        this process, on the store's file
remote       the server that holds the store
failover     either of them, whichever can answer by the time it is asked
opening      decides which of them a command gets
chat         the protocol of streamed answers; ``local_chat`` and ``remote_chat`` implement it
operations   changes made through a server: sent once, then awaited
===========  ==================================================================================

A new verb is declared in ``base`` and implemented in ``local``, ``remote`` and ``failover``; mypy
fails until it is.
"""
