"""One running model as a service: what HTTP and MCP both need. Neither is imported here.

===============  ===================================================================================
schemas          schemas that HTTP, MCP and the command line share
requests         bodies of requests, each defined once
errors           the one table of errors
owner            the file beside a store that names its server; how both prove who they are
tokens           bearer tokens, stored as digests, and their roles
sessions         bearer tokens of the owner, for programs that cannot sign
guard            checks every HTTP request before a route or an endpoint sees it
limits           how much the server accepts
shares           fair shares: nobody gets more than half
decoding         tokens to text while more of them come
stream_buffer    the text of one continuation while it is generated
generation_pool  the threads that generate, in batches, from a bounded queue
generation_job   the continuations of one request, awaited in the event loop
writer           the queue of changes, and the one thread that makes them
changes          submitting a change, and what is checked before
events           what happens, for clients that listen
metrics          counters for Prometheus
runner           the running model: all of these around one kit
mounts           applications that are served beside the HTTP routes
model_names      whether two names mean the same model
client           the client of a running server
===============  ===================================================================================

``owner``, ``tokens``, ``schemas`` and ``client`` import pydantic and the standard library only, so
that commands which look for a server are cheap.
"""
