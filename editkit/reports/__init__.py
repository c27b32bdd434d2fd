"""Pages of HTML that need nothing else: no network and no script. No framework is imported."""
