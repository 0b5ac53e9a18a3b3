-- What is heard of stock is taken in by one statement, and the window is refreshed in one place: refresh_products. (0007
-- was never needed.)

-- These locked products changed in the window, and of some of them other variants are offered than before: notes it for
-- all who read the window, lists and delists, and has the search find what is offered. One row for each product; those
-- that came into the window or left it have a version. A product that nobody described yet is not found before it is.
CREATE FUNCTION refresh_products(changed text [], reoffered text []) RETURNS TABLE (
    product_id text, version bigint, listed boolean, change_time timestamptz
) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO product_changes (product_id) SELECT DISTINCT unnest(changed) ON CONFLICT DO NOTHING;
    IF cardinality(reoffered) = 0 THEN
        RETURN QUERY SELECT each, NULL::bigint, NULL::boolean, NULL::timestamptz FROM unnest(changed) AS each;
        RETURN;
    END IF;
    RETURN QUERY
    WITH turned AS MATERIALIZED (SELECT * FROM refresh_listed(reoffered))
    SELECT each, t.version, t.listed, t.change_time FROM unnest(changed) AS each LEFT JOIN turned t ON t.product_id = each;
    PERFORM refresh_search(reoffered);
END $$;

-- The copied stock of some SKUs changed: locks their products, adds up what is free of them and refreshes those of which
-- another number is. Returns what refresh_products does. A function, since each of its statements sees what was committed
-- while it waited for the locks: two that heard of different locations of one SKU must not both add up without the other.
CREATE FUNCTION move_stock(moved text []) RETURNS TABLE (
    product_id text, version bigint, listed boolean, change_time timestamptz
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    hit text[];
    changed text[];
    reoffered text[];
BEGIN
    SELECT array_agg(DISTINCT product_id) INTO hit FROM variants WHERE sku = ANY(moved);
    IF hit IS NULL THEN
        RETURN;
    END IF;
    PERFORM FROM products WHERE product_id = ANY(hit) ORDER BY product_id FOR NO KEY UPDATE;
    WITH added_up AS (
        UPDATE variants v SET free = now_free.free FROM (
            SELECT asked.sku, coalesce(sum(s.free), 0)::bigint AS free
            FROM (SELECT DISTINCT unnest(moved) AS sku) asked LEFT JOIN stock_copy s ON s.sku = asked.sku
            GROUP BY asked.sku
        ) now_free WHERE v.sku = now_free.sku AND v.free <> now_free.free
        RETURNING new.product_id, old.sellable <> new.sellable AS turned
    )
    SELECT array_agg(DISTINCT product_id), coalesce(array_agg(DISTINCT product_id) FILTER (WHERE turned), '{}')
    INTO changed, reoffered FROM added_up;
    IF changed IS NOT NULL THEN
        RETURN QUERY SELECT * FROM refresh_products(changed, reoffered);
    END IF;
END $$;

-- Takes in how many units ever came in at each place. Returns how many came in since they were last counted. What is
-- known already is not even locked. A number heard with a fact only grows; one that inventory gave when it was asked (at
-- that time of our clock) also counts where it is lower: then inventory was restored from a backup.
CREATE FUNCTION count_received(skus text [], locations text [], totals bigint [], asked timestamptz) RETURNS TABLE (
    sku text, units bigint
) LANGUAGE sql AS $$
    WITH counted AS (
        INSERT INTO received AS known (sku, location, total, heard_time)
        SELECT told.sku, told.location, told.total, clock_timestamp()
        FROM unnest(skus, locations, totals) AS told (sku, location, total)
        LEFT JOIN received before USING (sku, location)
        WHERE before.total IS DISTINCT FROM told.total
        ORDER BY told.sku COLLATE "C", told.location COLLATE "C"
        ON CONFLICT (sku, location) DO UPDATE SET total = excluded.total, heard_time = excluded.heard_time
        WHERE known.total IS NULL OR excluded.total > known.total
            OR (excluded.total < known.total AND known.heard_time < asked)
        RETURNING new.sku,
            CASE WHEN old.sku IS NULL THEN new.total ELSE new.total - coalesce(old.total, new.total) END AS units
    )
    SELECT c.sku, sum(c.units)::bigint FROM counted c WHERE c.units > 0 GROUP BY c.sku
$$;

-- Levels of stock were heard, each place once, and up to when partitions are complete: keeps what is newer than what is
-- known. Returns what became of products (as refresh_products), and of each SKU that somebody waits for how many units
-- came in. Shares the lock of feeds: all that follows sees what the feed before it has written. Its statements are planned
-- once a session, to look for rows one by one, as few are heard of: to plan them each time costs several times as much
-- as to run them, and a plan made while the tables are empty must not read them all when they are full.
CREATE FUNCTION hear_stock(
    feed_lock bigint, skus text [], locations text [], versions bigint [], frees bigint [], totals bigint [],
    partitions bigint [], reached timestamptz []
) RETURNS TABLE (
    product_id text, version bigint, listed boolean, change_time timestamptz, sku text, units bigint
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    moved text[];
    came_skus text[];
    came_locations text[];
    came_totals bigint[];
BEGIN
    IF cardinality(skus) > 0 THEN
        PERFORM pg_advisory_xact_lock_shared(feed_lock);
        WITH heard AS (
            INSERT INTO stock_copy (sku, location, version, free, received_total, heard_time)
            SELECT told.*, clock_timestamp()
            FROM unnest(skus, locations, versions, frees, totals) AS told (sku, location, version, free, received_total)
            ORDER BY sku COLLATE "C", location COLLATE "C"
            ON CONFLICT (sku, location) DO UPDATE SET version = excluded.version, free = excluded.free,
                received_total = excluded.received_total, heard_time = excluded.heard_time
            WHERE excluded.version > stock_copy.version
            RETURNING new.sku, new.location, new.received_total AS total,
                new.received_total IS DISTINCT FROM old.received_total AS came_in
        )
        SELECT array_agg(DISTINCT sku), array_agg(sku) FILTER (WHERE came_in),
            array_agg(location) FILTER (WHERE came_in), array_agg(total) FILTER (WHERE came_in)
        INTO moved, came_skus, came_locations, came_totals FROM heard;
        IF came_skus IS NOT NULL THEN
            SELECT array_agg(sku), array_agg(units) INTO came_skus, came_totals
            FROM count_received(came_skus, came_locations, came_totals, NULL);
        END IF;
        IF moved IS NOT NULL THEN
            RETURN QUERY SELECT m.*, NULL::text, NULL::bigint FROM move_stock(moved) m;
        END IF;
        -- Only under the locks of the products: who begins to wait has them, too.
        IF came_skus IS NOT NULL THEN
            RETURN QUERY SELECT NULL::text, NULL::bigint, NULL::boolean, NULL::timestamptz, came.sku, came.units
            FROM unnest(came_skus, came_totals) AS came (sku, units)
            WHERE EXISTS (SELECT FROM subscriptions s WHERE s.sku = came.sku AND s.state = 'waiting');
        END IF;
    END IF;
    IF cardinality(partitions) > 0 THEN
        INSERT INTO watermarks (partition_number, as_of, heard_time)
        SELECT told.*, clock_timestamp() FROM unnest(partitions, reached) AS told
        ON CONFLICT (partition_number) DO UPDATE SET as_of = excluded.as_of, heard_time = excluded.heard_time
        WHERE excluded.as_of > watermarks.as_of;
    END IF;
END $$;
