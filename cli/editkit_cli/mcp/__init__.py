"""One running model for agents: tools over MCP, the Model Context Protocol.

=============  =================================================================================
tool           definition of a tool, and the context of a call
model_tools    tools that ask the model: generate, explain
edit_tools     the tool that corrects it: add
read_tools     tools that read the history: list, show, log, diff, verify, status
history_tools  tools that change it: revert, rollback, undo, replay, operation
operations     queueing a change, with progress; its outcome
results        results of the tools that read the history
render         results as text for a model
errors         errors that a model can act on
server         the MCP server: all tools over one runner
endpoint       ``/mcp``: MCP over HTTP, mounted by ``editkit serve``
sessions       sessions of agents at ``/mcp``
streams        standard input and output, reserved for the protocol
stdio          ``editkit mcp``: MCP over standard input and output
bridge         ``editkit mcp`` while a server holds the store
=============  =================================================================================

Tools and HTTP routes use the same service, and import nothing of each other.
"""
