"""What every command shares: options, help, output, Ctrl-C."""
