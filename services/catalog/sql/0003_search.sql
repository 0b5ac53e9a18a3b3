-- squawk-ignore-file prefer-bigint-over-int
-- Tokens are numbers of 32 bits: a shop has some hundred thousand, and rows hold many of them.

-- What products are found by, and in which order: one row for each product in the window, made from the records by
-- refresh_search.

-- Words and values of attributes under numbers, so that one index of numbers finds products by any mix of them. The kinds
-- are those of a word by where it stands (title, fact, text), those of values (brand, category, size, ...), currency, begun
-- (the first letters of a word of a title) and written (a word as a text has it, for corrections; no row has it).
CREATE TABLE search_tokens (
    token int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    -- Of a written word: itself and itself without one of its letters, to find it when it is misspelt.
    misspelt text [] NOT NULL DEFAULT '{}',
    -- Of a value: the tokens (kind fact) of its words.
    words int [] NOT NULL DEFAULT '{}',
    UNIQUE (kind, value)
);
CREATE INDEX search_tokens_misspelt ON search_tokens USING gin (misspelt) WHERE kind = 'written';

-- What the texts of a product say, as tokens; made anew when they are others. Of every product, in stock or not.
CREATE TABLE product_words (
    product_id text COLLATE "C" PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    -- Of all this was made from; see search_source.
    described bigint NOT NULL DEFAULT 0,
    title int [] NOT NULL DEFAULT '{}',
    text int [] NOT NULL DEFAULT '{}',
    brand int NOT NULL DEFAULT 0,
    -- The category and all above it.
    categories int [] NOT NULL DEFAULT '{}',
    -- The title as a language sorts it, byte by byte.
    name text COLLATE "C" NOT NULL DEFAULT '',
    name_de text COLLATE "C" NOT NULL DEFAULT '',
    name_en text COLLATE "C" NOT NULL DEFAULT '',
    name_cs text COLLATE "C" NOT NULL DEFAULT ''
) WITH (fillfactor = 90);

-- How much a product was ordered lately: the binary logarithm of its units, each counted twice as much as one ordered
-- a half-life earlier. As a logarithm it needs no sweep: time lowers all alike.
CREATE TABLE product_popularity (
    product_id text COLLATE "C" PRIMARY KEY,
    popularity double precision NOT NULL
) WITH (fillfactor = 70);

-- A variant in a currency it is sold in; values as tokens.
CREATE TYPE search_offer AS (
    currency int, amount numeric,
    size int, size_system int, color int, width int, material int, gender int, age_group int
);

CREATE TABLE search_rows (
    number bigint PRIMARY KEY,
    product_id text COLLATE "C" NOT NULL,
    -- Everything it is found by: words, values, currencies.
    tokens int [] NOT NULL,
    -- The words of its title, and of the values it has: what counts for relevance.
    title int [] NOT NULL,
    facts int [] NOT NULL,
    brand int NOT NULL,
    categories int [] NOT NULL,
    currencies int [] NOT NULL,
    offers search_offer [] NOT NULL,
    -- Of product_popularity, in steps, so that few orders of much move it.
    popularity bigint NOT NULL,
    create_time timestamptz NOT NULL,
    name text COLLATE "C" NOT NULL,
    name_de text COLLATE "C" NOT NULL,
    name_en text COLLATE "C" NOT NULL,
    name_cs text COLLATE "C" NOT NULL,
    -- At random, from 0 to 8191: the rows below a number are a fair sample.
    lot bigint NOT NULL,
    -- What this row was made from.
    described bigint NOT NULL,
    offered bigint NOT NULL
) WITH (fillfactor = 90);
CREATE UNIQUE INDEX search_rows_product ON search_rows (product_id);
-- Without a list of pending entries, which every search would have to read through.
CREATE INDEX search_rows_tokens ON search_rows USING gin (tokens) WITH (fastupdate = off);
CREATE INDEX search_rows_sample ON search_rows USING gin (tokens) WITH (fastupdate = off) WHERE lot < 128;
CREATE INDEX search_rows_lots ON search_rows (lot) WHERE lot < 128;
CREATE INDEX search_rows_popularity ON search_rows ((-popularity), number);
CREATE INDEX search_rows_newest ON search_rows (create_time, number);
CREATE INDEX search_rows_name ON search_rows (name, number);
CREATE INDEX search_rows_name_de ON search_rows (name_de, number);
CREATE INDEX search_rows_name_en ON search_rows (name_en, number);
CREATE INDEX search_rows_name_cs ON search_rows (name_cs, number);

-- The lowest price of each product in the window in each currency.
CREATE TABLE search_prices (
    currency int NOT NULL,
    number bigint NOT NULL,
    amount numeric NOT NULL,
    PRIMARY KEY (currency, number)
) WITH (fillfactor = 90);
CREATE INDEX search_prices_amount ON search_prices (currency, amount, number);

-- What is looked for by its article number.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX variants_gtin ON variants (gtin) WHERE gtin <> '';

-- How many products in the window have a value, by currency: the sum of what was added and taken away. Rows are only
-- added by those who change the window, so that nobody waits for anybody; a tick adds them up.
CREATE TABLE search_counts (
    currency int NOT NULL,
    token int NOT NULL,
    products bigint NOT NULL
);
CREATE INDEX search_counts_of ON search_counts (currency, token) INCLUDE (products);

-- The values a product in the window counts for, by currency. The currency's own token stands for the product itself.
CREATE FUNCTION search_places(brand int, categories int [], offers search_offer [])
RETURNS TABLE (currency int, token int) LANGUAGE sql IMMUTABLE AS $$
    SELECT DISTINCT o.currency, each.token FROM unnest(offers) o CROSS JOIN LATERAL unnest(
        ARRAY[o.currency, o.size, o.size_system, o.color, o.width, o.material, o.gender, o.age_group, brand] || categories
    ) AS each(token) WHERE each.token > 0
$$;

-- Names what a product is described from: its texts and all values its variants have.
CREATE FUNCTION search_source(hit text) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT hashtextextended(concat_ws(chr(31), p.brand, p.category,
        (SELECT string_agg(concat_ws(chr(31), locale, title, description), chr(30) ORDER BY locale)
            FROM product_texts t WHERE t.product_id = p.product_id),
        (SELECT string_agg(DISTINCT concat_ws(
                chr(31), v.size, v.size_system, v.color, v.width, v.material, v.gender, v.age_group), chr(30))
            FROM variants v WHERE v.product_id = p.product_id)
    ), 0) FROM products p WHERE p.product_id = hit
$$;

-- Names what is offered of a product: which variants, with which values, for how much. NULL: nothing.
CREATE FUNCTION search_offered(hit text) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT hashtextextended(string_agg(concat_ws(chr(31), v.sku, v.size, v.size_system, v.color, v.width, v.material,
        v.gender, v.age_group, c.currency, c.amount), chr(30) ORDER BY v.sku, c.currency), 0)
    FROM variants v JOIN current_prices c ON c.sku = v.sku WHERE v.product_id = hit AND v.sellable
$$;

-- Products of which anything changed, locked and described: makes their rows what the records say. Leaves those alone
-- whose row would not be another, as when only the number of free units moved.
CREATE FUNCTION refresh_search(hit text []) RETURNS bigint LANGUAGE plpgsql AS $$
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
            ) places
            CROSS JOIN LATERAL (
                SELECT ARRAY(SELECT DISTINCT unnest((SELECT s.words FROM search_tokens s WHERE s.token = each.token))
                    FROM unnest(places.tokens) AS each(token)) AS words
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
