"""What catalog decides, without transport or tables."""
