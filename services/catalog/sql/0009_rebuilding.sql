-- One row while the copy of stock is being rebuilt from its topic: until it is done, nothing is taken from the copy
-- without asking inventory, whatever the watermarks say.
CREATE TABLE rebuilding (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    begin_time timestamptz NOT NULL
);
