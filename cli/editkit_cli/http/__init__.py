"""The running model behind HTTP."""
