"""The commands, one verb per module; a module is imported when its verb is named.

A module is named like its verb, with an underscore where the verb is a name of Python's, and has
the command under the same name. So a new module is a new command; ``main.ORDER`` says where the
help lists it.
"""
