"""What inventory does: each locks, decides in the domain, saves, and appends the facts, in one transaction."""
