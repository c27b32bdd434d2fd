"""What commands are made of that is too long for their own modules, or used by several of them."""
