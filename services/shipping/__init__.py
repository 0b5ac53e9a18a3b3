"""Orders and shipments: what was promised, what is promised now, and what came true."""
