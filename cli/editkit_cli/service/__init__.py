"""One running model behind HTTP.

===========  =========================================================================
owner        the file beside a store that says which server holds it; finding that server
tokens       who may do what: bearer tokens, stored hashed
files        small private files beside a store
guard        what is refused before a route sees it: hosts, origins, bodies, strangers
limits       how much is taken
shares       what many use: nobody gets more than half, and who gives way
connections  how long they may keep the server waiting, and which gives way
errors       errors as OpenAI's clients understand them
page         the files of the web page; the keys that sign it in
shapes       requests and answers in OpenAI's shapes; the server's own records
decoding     tokens to text while more of them come
answer       one continuation in progress: stop strings, deltas, the reason it ended
readers      generating in threads, in batches, from a bounded queue
writer       the one thread that corrects
events       what happens, told to whoever listens
metrics      counters for Prometheus
names        whether two model names mean one model
told         records for the command line only
runner       the running model: readers, writer and events around one kit
routes       the paths, by subject
app          the application
serving      ``editkit serve``: the socket, the owner's file, the end
===========  =========================================================================

``owner`` and ``tokens`` import the standard library and pydantic only: commands that look for a
server, or make a token, pay for nothing else.
"""
