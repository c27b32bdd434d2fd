"""From a request to a verified, recorded and active edit."""
