"""The commands, one module per group of verbs; each is imported when one of its verbs is named."""
