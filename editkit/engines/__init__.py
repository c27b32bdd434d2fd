"""Where a model runs: loading, tokens, and generation with edits applied."""
