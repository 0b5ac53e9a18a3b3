-- Safety stock, holds of waiting customers, destinations, peers, returns, and locks and counts for many commands at once.
-- The functions of 0001 stay: replicas of the version before call them until they are replaced.

-- Units that are never offered.
ALTER TABLE stock ADD COLUMN safety bigint NOT NULL DEFAULT 0;
ALTER TABLE stock ADD CONSTRAINT stock_safety_not_negative CHECK (safety >= 0) NOT VALID;

ALTER TABLE ledger ADD COLUMN safety_delta bigint NOT NULL DEFAULT 0;
-- The request that caused it; null where a fact or the clock did.
ALTER TABLE ledger ADD COLUMN request_id text;

-- 'checkout' or 'waiting_customer'.
ALTER TABLE reservations ADD COLUMN purpose text NOT NULL DEFAULT 'checkout';
-- Where the units go, if that is known.
ALTER TABLE reservations ADD COLUMN country text NOT NULL DEFAULT '';
-- Where the call came from, as an opaque hash.
ALTER TABLE reservations ADD COLUMN peer text NOT NULL DEFAULT '';
-- The checkout that used up this hold of a waiting customer.
ALTER TABLE reservations ADD COLUMN used_by text;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX reservations_of_peer ON reservations (peer) WHERE state = 'held' AND peer <> '';

-- Of the shipped units, those that came back.
ALTER TABLE reservation_lines ADD COLUMN returned bigint NOT NULL DEFAULT 0;
ALTER TABLE reservation_lines ADD CONSTRAINT lines_returned CHECK (returned BETWEEN 0 AND shipped) NOT VALID;

-- In which order locations serve a country; '' is for all that have no order of their own.
CREATE TABLE location_ranks (
    country text PRIMARY KEY,
    locations text [] NOT NULL
);

-- Locks the rows of some SKUs in the global order, then expires the holds on them that are due: whoever locks a row first
-- does so. A function, since each statement of it sees what was committed while it waited for the lock.
CREATE FUNCTION lock_levels(wanted text []) RETURNS TABLE (
    sku text,
    location text,
    on_hand bigint,
    held bigint,
    committed bigint,
    safety bigint,
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
        RETURN QUERY SELECT s.sku, s.location, s.on_hand, s.held, s.committed, s.safety, s.received_total, s.version,
            0::bigint, since FROM stock s WHERE s.sku = ANY(wanted) ORDER BY s.sku, s.location;
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
    SELECT s.sku, s.location, s.on_hand, s.held - coalesce(sums.quantity, 0), s.committed, s.safety, s.received_total,
        s.version + coalesce(sums.moves, 0), coalesce(sums.quantity, 0), since
    FROM stock s LEFT JOIN sums USING (sku, location)
    WHERE s.sku = ANY(wanted) ORDER BY s.sku, s.location;
END $$;

-- The live holds of some customers, and of some peers. Holds are counted one caller after the other, so that two at once
-- cannot both be the last one allowed; all locks of one caller are taken in one order.
CREATE FUNCTION count_holds(customers text [], peers text []) RETURNS TABLE (
    customer_id text,
    purpose text,
    peer text,
    held bigint
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM pg_advisory_xact_lock(key) FROM (
        SELECT DISTINCT hashtextextended(name, 0) AS key FROM (
            SELECT 'holds:' || c AS name FROM unnest(customers) c
            UNION ALL SELECT 'peer:' || p FROM unnest(peers) p
        ) names ORDER BY key
    ) keys;
    RETURN QUERY
    SELECT r.customer_id, r.purpose, NULL::text, count(*) FROM reservations r
    WHERE r.customer_id = ANY(customers) AND r.state = 'held' AND r.expire_time > clock_timestamp()
    GROUP BY r.customer_id, r.purpose;
    IF cardinality(peers) > 0 THEN
        RETURN QUERY
        SELECT NULL::text, NULL::text, r.peer, count(*) FROM reservations r
        WHERE r.peer = ANY(peers) AND r.peer <> '' AND r.state = 'held' AND r.expire_time > clock_timestamp()
        GROUP BY r.peer;
    END IF;
END $$;

-- Changes the balances and writes the ledger, in one statement; the caller holds the locks. A function, since planning
-- the statement costs more than running it, and PostgreSQL would plan it anew for every call.
CREATE FUNCTION write_movements(
    skus text [], locations text [], kinds text [], on_hands bigint [], helds bigint [], committeds bigint [],
    safeties bigint [], versions bigint [], reservation_ids text [], order_ids text [], actors text [], reasons text [],
    request_ids text []
) RETURNS void LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    WITH moves AS (
        SELECT * FROM unnest(skus, locations, kinds, on_hands, helds, committeds, safeties, versions, reservation_ids,
            order_ids, actors, reasons, request_ids) AS m (sku, location, kind, on_hand, held, committed, safety, version,
            reservation_id, order_id, actor, reason, request_id)
    ), entries AS (
        INSERT INTO ledger (sku, location, kind, on_hand_delta, held_delta, committed_delta, safety_delta, version,
            reservation_id, order_id, actor, reason, request_id) SELECT * FROM moves
    ), sums AS (
        SELECT sku, location, sum(on_hand) AS on_hand,
            -- Units that only changed their place did not come in.
            sum(CASE WHEN kind = 'transfer' THEN 0 ELSE greatest(on_hand, 0) END) AS received, sum(held) AS held,
            sum(committed) AS committed, sum(safety) AS safety, max(version) AS version
        FROM moves GROUP BY sku, location
    )
    UPDATE stock s SET on_hand = s.on_hand + sums.on_hand, held = s.held + sums.held,
        committed = s.committed + sums.committed, safety = s.safety + sums.safety,
        received_total = s.received_total + sums.received, version = sums.version
    FROM sums WHERE s.sku = sums.sku AND s.location = sums.location;
END $$;
