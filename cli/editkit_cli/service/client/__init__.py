"""The client of a server that holds a store: what the command line and the MCP bridge use.

==========  ====================================================================================
connection  one authenticated connection, JSON both ways
errors      errors of the connection; the server's own errors as their classes
sign_in     a link that opens the web page signed in; a session token
==========  ====================================================================================

Imports neither torch nor a web framework: with a server, a command is cheap.
"""
