-- Which products changed in the window, and by which transaction: what a replica reads that missed a word. Sequences do not
-- stand in the order of commits; the number of the transaction with a snapshot says exactly what was committed since.
-- Written in the transaction that changes the product, deleted some minutes later.
CREATE TABLE product_changes (
    change_xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    product_id text COLLATE "C" NOT NULL,
    note_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (change_xid, product_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
