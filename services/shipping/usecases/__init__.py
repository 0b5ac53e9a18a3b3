"""What shipping does: begin a checkout, place an order, and all that happens to the order after that."""
