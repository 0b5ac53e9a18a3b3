-- What lies at one location of one SKU. Every statement that changes a row holds its lock; rows are locked in
-- (sku, location) order.
CREATE TABLE stock (
    sku text NOT NULL,
    location text NOT NULL,
    on_hand bigint NOT NULL DEFAULT 0 CHECK (on_hand >= 0),
    held bigint NOT NULL DEFAULT 0 CHECK (held >= 0),
    committed bigint NOT NULL DEFAULT 0 CHECK (committed >= 0),
    -- Units that ever physically came in. Only grows.
    received_total bigint NOT NULL DEFAULT 0,
    -- Counts the movements of this row.
    version bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (sku, location)
);

-- The append-only movement ledger. The sums of the deltas are the balances of the stock row.
CREATE TABLE ledger (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sku text NOT NULL,
    location text NOT NULL,
    kind text NOT NULL,
    on_hand_delta bigint NOT NULL,
    held_delta bigint NOT NULL,
    committed_delta bigint NOT NULL,
    reservation_id text,
    order_id text,
    actor text NOT NULL,
    reason text NOT NULL,
    version bigint NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (sku, location) REFERENCES stock (sku, location)
);
CREATE UNIQUE INDEX ledger_version ON ledger (sku, location, version);
CREATE INDEX ledger_newest ON ledger (sku, entry_id DESC);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only';
END $$;
CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE ON ledger
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Units set aside for one customer. A held one past its time is expired, whether or not the state says so yet.
CREATE TABLE reservations (
    reservation_id text PRIMARY KEY,
    customer_id text NOT NULL,
    state text NOT NULL CHECK (state IN ('held', 'committed', 'released', 'expired')),
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    order_id text,
    version bigint NOT NULL DEFAULT 1
);
CREATE INDEX reservations_due ON reservations (expire_time) WHERE state = 'held';
CREATE INDEX reservations_of_customer ON reservations (customer_id) WHERE state = 'held';

-- Which units come from where. Changed only under the lock of the stock row.
CREATE TABLE reservation_lines (
    reservation_id text NOT NULL REFERENCES reservations,
    sku text NOT NULL,
    location text NOT NULL,
    quantity bigint NOT NULL CHECK (quantity > 0),
    shipped bigint NOT NULL DEFAULT 0 CHECK (shipped BETWEEN 0 AND quantity),
    -- Set while these units are counted in stock.held.
    held_until timestamptz,
    -- True while these units are promised to an order; what is shipped of them is no longer counted in stock.committed.
    promised boolean NOT NULL DEFAULT false,
    PRIMARY KEY (reservation_id, sku, location),
    FOREIGN KEY (sku, location) REFERENCES stock (sku, location)
);
CREATE INDEX reservation_lines_held ON reservation_lines (sku, held_until) INCLUDE (location, quantity)
WHERE held_until IS NOT NULL;
CREATE INDEX reservation_lines_promised ON reservation_lines (sku, location) WHERE promised AND shipped < quantity;

-- What an order did with its stock. Released stays released: it refuses the late commit of a process that thaws.
CREATE TABLE order_marks (
    order_id text PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('committed', 'released')),
    reservation_id text
);

-- Which rows of which stock file were taken in.
CREATE TABLE imported_rows (
    document_id text NOT NULL,
    sku text NOT NULL,
    location text NOT NULL,
    PRIMARY KEY (document_id, sku, location)
);

-- Locks the rows of some SKUs in the global order, then expires the holds on them that are due: whoever locks a row first
-- does so. A function, since each statement of it sees what was committed while it waited for the lock.
CREATE FUNCTION lock_stock(wanted text []) RETURNS TABLE (
    sku text,
    location text,
    on_hand bigint,
    held bigint,
    committed bigint,
    received_total bigint,
    version bigint,
    expired bigint,
    lock_time timestamptz
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    since timestamptz;
BEGIN
    PERFORM FROM stock WHERE sku = ANY(wanted) ORDER BY sku, location FOR UPDATE;
    since := clock_timestamp();
    IF NOT EXISTS (SELECT FROM reservation_lines WHERE sku = ANY(wanted) AND held_until <= since) THEN
        RETURN QUERY SELECT s.sku, s.location, s.on_hand, s.held, s.committed, s.received_total, s.version, 0::bigint,
            since FROM stock s WHERE s.sku = ANY(wanted) ORDER BY s.sku, s.location;
        RETURN;
    END IF;
    RETURN QUERY
    WITH due AS (
        UPDATE reservation_lines SET held_until = NULL
        WHERE sku = ANY(wanted) AND held_until <= since
        RETURNING sku, location, quantity, reservation_id
    ), numbered AS (
        SELECT due.*, row_number() OVER (PARTITION BY sku, location ORDER BY reservation_id) AS nth FROM due
    ), entries AS (
        INSERT INTO ledger (sku, location, kind, on_hand_delta, held_delta, committed_delta, reservation_id, actor,
            reason, version)
        SELECT n.sku, n.location, 'expire', 0, -n.quantity, 0, n.reservation_id, 'clock', 'its time ran out',
            s.version + n.nth
        FROM numbered n JOIN stock s USING (sku, location)
    ), sums AS (
        SELECT sku, location, sum(quantity)::bigint AS quantity, count(*) AS moves FROM due GROUP BY sku, location
    ), moved AS (
        UPDATE stock s SET held = s.held - sums.quantity, version = s.version + sums.moves
        FROM sums WHERE s.sku = sums.sku AND s.location = sums.location
    )
    SELECT s.sku, s.location, s.on_hand, s.held - coalesce(sums.quantity, 0), s.committed, s.received_total,
        s.version + coalesce(sums.moves, 0), coalesce(sums.quantity, 0), since
    FROM stock s LEFT JOIN sums USING (sku, location)
    WHERE s.sku = ANY(wanted) ORDER BY s.sku, s.location;
END $$;

-- How many live holds a customer has. Holds of one customer are counted one after the other, so that two at once cannot
-- both be the last one allowed.
CREATE FUNCTION open_holds(customer text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('holds:' || customer, 0));
    RETURN (SELECT count(*) FROM reservations
        WHERE customer_id = customer AND state = 'held' AND expire_time > clock_timestamp());
END $$;

-- Changes the balances and writes the ledger, in one statement; the caller holds the locks. A function, since planning
-- the statement costs more than running it, and PostgreSQL would plan it anew for every call.
CREATE FUNCTION move_stock(
    skus text [], locations text [], kinds text [], on_hands bigint [], helds bigint [], committeds bigint [],
    versions bigint [], reservation_ids text [], order_ids text [], actors text [], reasons text []
) RETURNS void LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    WITH moves AS (
        SELECT * FROM unnest(skus, locations, kinds, on_hands, helds, committeds, versions, reservation_ids, order_ids,
            actors, reasons) AS m (sku, location, kind, on_hand, held, committed, version, reservation_id, order_id,
            actor, reason)
    ), entries AS (
        INSERT INTO ledger (sku, location, kind, on_hand_delta, held_delta, committed_delta, version, reservation_id,
            order_id, actor, reason) SELECT * FROM moves
    ), sums AS (
        SELECT sku, location, sum(on_hand) AS on_hand, sum(greatest(on_hand, 0)) AS received, sum(held) AS held,
            sum(committed) AS committed, max(version) AS version FROM moves GROUP BY sku, location
    )
    UPDATE stock s SET on_hand = s.on_hand + sums.on_hand, held = s.held + sums.held,
        committed = s.committed + sums.committed, received_total = s.received_total + sums.received,
        version = sums.version
    FROM sums WHERE s.sku = sums.sku AND s.location = sums.location;
END $$;

-- Takes all locks of some orders in the global order, for many facts in one transaction. Orders that are being released
-- get their mark here, so that nobody's commit comes between. Nothing expires here: who handles a fact announces that.
CREATE FUNCTION lock_orders(orders text [], releasing text []) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    reserved text [];
BEGIN
    INSERT INTO order_marks (order_id, state)
    SELECT o, 'released' FROM unnest(releasing) o ORDER BY o ON CONFLICT DO NOTHING;
    PERFORM FROM order_marks WHERE order_id = ANY(orders) ORDER BY order_id FOR UPDATE;
    SELECT array_agg(reservation_id) INTO reserved
    FROM order_marks WHERE order_id = ANY(orders) AND reservation_id IS NOT NULL;
    PERFORM FROM reservations WHERE reservation_id = ANY(reserved) ORDER BY reservation_id FOR UPDATE;
    PERFORM FROM stock WHERE sku IN (SELECT l.sku FROM reservation_lines l WHERE l.reservation_id = ANY(reserved))
    ORDER BY sku, location FOR UPDATE;
END $$;
