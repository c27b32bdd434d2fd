"""One running model for agents: tools over MCP, the Model Context Protocol.

=========  ===========================================================================
tool       what a tool is, and what it is called with
asking     tools that ask the model: generate, explain
history    tools that read the history: list, show, log, diff, verify, status
found      what those give: short records of the history
changes    carrying a change out, with progress; what became of it
adding     the tool that corrects: add
moving     tools that take back, or learn again: revert, rollback, undo, replay, operation
texts      what a model reads of a result
failing    errors that a model can act on
agents     the protocol's server: all of these tools over a runner
endpoint   ``/mcp``: the same over HTTP, within ``editkit serve``
sessions   of agents at ``/mcp``: a share for each caller
wire       standard input and output as a wire that nothing else writes to
stdio      ``editkit mcp``: the same over standard input and output
bridge     ``editkit mcp`` beside a server that holds the store: its tools, passed on
=========  ===========================================================================

Tools do what the HTTP routes do, through the same runner: one writer learns while readers generate.
"""
