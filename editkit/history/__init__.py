"""The history as a running model follows it: views, and what differs between versions."""
