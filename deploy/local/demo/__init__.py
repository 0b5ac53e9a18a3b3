"""One customer's story through the shop's public API, told as it happens."""
