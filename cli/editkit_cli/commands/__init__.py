"""The commands, one verb per module; a module is imported when its verb is named."""
