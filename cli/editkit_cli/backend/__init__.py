"""The server that holds a store, as the command line asks it.

========  ========================================================================
errors    errors of the wire, and the server's own turned back into their classes
wire      one connection: proved before the owner's token is sent, JSON both ways
changes   what is written: sent, waited for or followed, carried out in any case
client    the methods of a kit and of a history, over a wire
voice     a streamed answer, which can be stopped
linking   asking for a link that opens the web page, signed in
either    the server, or alone where it has gone before it was asked
========  ========================================================================

Nothing here imports torch: with a server, a command costs what it asks.
"""
