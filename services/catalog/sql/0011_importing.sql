-- As in 0003, but each product's values and words are worked out once.

-- Products of which anything changed, locked and described: makes their rows what the records say. Leaves those alone
-- whose row would not be another, as when only the number of free units moved.
CREATE OR REPLACE FUNCTION refresh_search(hit text []) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    moved text[];
BEGIN
    SELECT array_agg(w.product_id) INTO moved
    FROM product_words w
        LEFT JOIN search_rows r ON r.product_id = w.product_id
        LEFT JOIN product_popularity y ON y.product_id = w.product_id
    WHERE w.product_id = ANY(hit) AND (r.offered IS DISTINCT FROM search_offered(w.product_id)
        OR (r.described, r.popularity) <> (w.described, coalesce(round(y.popularity * 4), 0)));
    IF moved IS NULL THEN
        RETURN 0;
    END IF;

    INSERT INTO search_tokens (kind, value) SELECT DISTINCT 'currency', c.currency
    FROM variants v JOIN current_prices c ON c.sku = v.sku WHERE v.product_id = ANY(moved) AND NOT EXISTS (
        SELECT FROM search_tokens t WHERE t.kind = 'currency' AND t.value = c.currency
    ) ORDER BY 2 ON CONFLICT DO NOTHING;
    INSERT INTO search_counts (currency, token, products)
    SELECT p.currency, p.token, -count(*) FROM search_rows r, search_places(r.brand, r.categories, r.offers) p
    WHERE r.product_id = ANY(moved) GROUP BY p.currency, p.token;
    DELETE FROM search_prices WHERE number IN (SELECT r.number FROM search_rows r WHERE r.product_id = ANY(moved));
    DELETE FROM search_rows r WHERE r.product_id = ANY(moved);

    -- Product by product and value by value: the planner, which cannot know how few they are, would read all there are.
    -- OFFSET 0 also where something is computed that is used more than once: otherwise it is, each time.
    WITH offering AS MATERIALIZED (
        SELECT hit_id AS product_id, each.currencies, each.offers
        FROM unnest(moved) AS hit_id CROSS JOIN LATERAL (
            SELECT array_agg(DISTINCT (one.offer).currency) AS currencies, array_agg(one.offer) AS offers FROM (
                SELECT ROW((SELECT token FROM search_tokens WHERE kind = 'currency' AND value = c.currency), c.amount,
                    (SELECT token FROM search_tokens WHERE kind = 'size' AND value = v.size),
                    (SELECT token FROM search_tokens WHERE kind = 'size_system' AND value = v.size_system),
                    (SELECT token FROM search_tokens WHERE kind = 'color' AND value = v.color),
                    (SELECT token FROM search_tokens WHERE kind = 'width' AND value = v.width),
                    (SELECT token FROM search_tokens WHERE kind = 'material' AND value = v.material),
                    (SELECT token FROM search_tokens WHERE kind = 'gender' AND value = v.gender),
                    (SELECT token FROM search_tokens WHERE kind = 'age_group' AND value = v.age_group))::search_offer AS offer
                FROM variants v CROSS JOIN LATERAL (
                    SELECT p.currency, p.amount FROM current_prices p WHERE p.sku = v.sku OFFSET 0
                ) c
                WHERE v.product_id = hit_id AND v.sellable OFFSET 0
            ) one
        ) each
        WHERE each.offers IS NOT NULL
    ), made AS (
        INSERT INTO search_rows
        SELECT w.number, w.product_id,
            ARRAY(SELECT DISTINCT unnest(w.title || w.text || facts.words || places.tokens || o.currencies)),
            w.title, facts.words, w.brand, w.categories, o.currencies, o.offers,
            coalesce(round(y.popularity * 4), 0), p.create_time, w.name, w.name_de, w.name_en, w.name_cs,
            hashint8(w.number) & 8191, w.described, search_offered(w.product_id)
        FROM offering o
            JOIN product_words w ON w.product_id = o.product_id
            JOIN products p ON p.product_id = o.product_id
            LEFT JOIN product_popularity y ON y.product_id = o.product_id
            CROSS JOIN LATERAL (
                SELECT ARRAY(SELECT DISTINCT s.token FROM search_places(w.brand, w.categories, o.offers) s) AS tokens
                OFFSET 0
            ) places
            CROSS JOIN LATERAL (
                SELECT ARRAY(SELECT DISTINCT unnest((SELECT s.words FROM search_tokens s WHERE s.token = each.token))
                    FROM unnest(places.tokens) AS each(token)) AS words
                OFFSET 0
            ) facts
        RETURNING number, brand, categories, offers
    ), priced AS (
        INSERT INTO search_prices (currency, number, amount)
        SELECT o.currency, made.number, min(o.amount) FROM made, unnest(made.offers) o GROUP BY o.currency, made.number
    )
    INSERT INTO search_counts (currency, token, products)
    SELECT p.currency, p.token, count(*) FROM made, search_places(made.brand, made.categories, made.offers) p
    GROUP BY p.currency, p.token;
    RETURN cardinality(moved);
END $$;
