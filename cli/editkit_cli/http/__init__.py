"""The running model behind HTTP.

===============  ===================================================================================
app              the application: routes over a runner, behind the guard
routes           the paths, by subject
openai_schemas   requests and responses of OpenAI's API
errors           exceptions as error responses
page             the files of the web page, and the keys of links to it
connections      limits on connections
serving          ``editkit serve``: sockets, the owner file, shutdown
===============  ===================================================================================
"""
