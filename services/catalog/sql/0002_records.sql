-- The table of variants is written anew here in any case, so its indexes may be, too.
-- squawk-ignore-file require-concurrent-index-creation, require-concurrent-index-deletion

-- Where a product stands, what it looks like, its texts in several languages, its prices in several currencies and over
-- time. (The columns that this replaces go in 0006.)
ALTER TABLE products
ADD COLUMN state text NOT NULL DEFAULT 'PUBLISHED',
-- [{"uri": …, "alternative_text": …}], the additional pictures.
ADD COLUMN media jsonb NOT NULL DEFAULT '[]',
ADD COLUMN create_time timestamptz NOT NULL DEFAULT now(),
ADD COLUMN update_time timestamptz NOT NULL DEFAULT now(),
-- Counts the changes of what is kept of the product and its variants, stock aside: the etag.
ADD COLUMN revision bigint NOT NULL DEFAULT 1;
ALTER TABLE products ADD CONSTRAINT products_state
CHECK (state IN ('DRAFT', 'PUBLISHED', 'DISCONTINUED')) NOT VALID;

ALTER TABLE variants
ADD COLUMN width text NOT NULL DEFAULT '',
ADD COLUMN material text NOT NULL DEFAULT '',
-- Additional pictures as a feed brought them, separated by commas.
ADD COLUMN additional_image_link text NOT NULL DEFAULT '',
-- Whether the product is published: here too, so that what may be shown is one column of the variant.
ADD COLUMN published boolean NOT NULL DEFAULT true;
ALTER TABLE variants ALTER COLUMN sellable SET EXPRESSION AS (free > 0 AND published);

DROP INDEX variants_alike;
DROP INDEX variants_near;
DROP INDEX variants_of_product;
-- In the order of SKUs, since a product reads as its variant with the lowest.
CREATE INDEX variants_of_product ON variants (product_id, sku);
CREATE INDEX variants_alike ON variants (size, category, gender, sku) WHERE sellable;
CREATE INDEX variants_near ON variants (category, sku) WHERE sellable;

-- The texts of a product in a language (BCP 47): those of its variant with the lowest SKU that has some.
CREATE TABLE product_texts (
    product_id text COLLATE "C" NOT NULL REFERENCES products,
    locale text COLLATE "C" NOT NULL,
    title text NOT NULL,
    description text NOT NULL,
    PRIMARY KEY (product_id, locale)
);

-- No foreign key from here on: a variant is never deleted, and a million of them are imported at once.
CREATE TABLE variant_texts (
    sku text COLLATE "C" NOT NULL,
    locale text COLLATE "C" NOT NULL,
    title text NOT NULL,
    description text NOT NULL,
    PRIMARY KEY (sku, locale)
);

-- What a variant costs from a time (included) to a time (not included). Of several that hold, the one that began last
-- counts; one that is reduced is shown beside the one that is not.
CREATE TABLE prices (
    sku text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    reduced boolean NOT NULL DEFAULT false,
    start_time timestamptz NOT NULL DEFAULT '-infinity',
    end_time timestamptz NOT NULL DEFAULT 'infinity',
    amount numeric NOT NULL CHECK (amount > 0),
    -- Brought by a feed, so the next feed may take it back.
    fed boolean NOT NULL DEFAULT false,
    PRIMARY KEY (sku, currency, reduced, start_time),
    CHECK (start_time < end_time)
);
-- The instants at which prices move, for the tick.
CREATE INDEX prices_starting ON prices (start_time, sku) WHERE start_time > '-infinity';
CREATE INDEX prices_ending ON prices (end_time, sku) WHERE end_time < 'infinity';

-- What holds now: moved on at each instant at which a price begins or ends. A variant without a row is not for sale in
-- that currency.
CREATE TABLE current_prices (
    sku text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    amount numeric NOT NULL,
    -- What it costs without the reduction that holds now; NULL where there is none.
    regular_amount numeric,
    PRIMARY KEY (sku, currency)
) WITH (fillfactor = 90);

-- Up to which instant prices were moved on, and up to which SKU of those that move at it.
CREATE TABLE price_clock (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    moved_until timestamptz NOT NULL,
    moved_sku text COLLATE "C" NOT NULL DEFAULT ''
);
INSERT INTO price_clock (moved_until) VALUES (now());

-- Who changed what, for ever: rows are added and never touched again.
CREATE TABLE product_history (
    change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id text COLLATE "C" NOT NULL,
    -- Empty: of the product itself.
    sku text COLLATE "C" NOT NULL DEFAULT '',
    -- Such as "state", "texts.de.title", "prices.EUR". What is new has one row, "sku" or "product_id".
    field text NOT NULL,
    before text NOT NULL,
    after text NOT NULL,
    actor text NOT NULL,
    change_time timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX product_history_of ON product_history (product_id, change_id);

INSERT INTO product_texts (product_id, locale, title, description)
SELECT product_id, 'en', title, description FROM products;
INSERT INTO variant_texts (sku, locale, title, description) SELECT sku, 'en', title, description FROM variants;
INSERT INTO prices (sku, currency, amount, fed) SELECT sku, currency, price, true FROM variants;
INSERT INTO current_prices (sku, currency, amount) SELECT sku, currency, price FROM variants;

-- The stock of some SKUs changed: locks their products and adds up what is free of them. Returns those products, for
-- the refresh that follows. A function, since each of its statements sees what was committed while it waited for the
-- locks: two that heard of different locations of one SKU must not both add up without the other.
CREATE FUNCTION add_up_stock(moved text []) RETURNS text [] LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    hit text[];
BEGIN
    SELECT array_agg(DISTINCT product_id) INTO hit FROM variants WHERE sku = ANY(moved);
    IF hit IS NULL THEN
        RETURN '{}';
    END IF;
    PERFORM FROM products WHERE product_id = ANY(hit) ORDER BY product_id FOR NO KEY UPDATE;
    UPDATE variants v SET free = now_free.free FROM (
        SELECT asked.sku, coalesce(sum(s.free), 0)::bigint AS free
        FROM (SELECT DISTINCT unnest(moved) AS sku) asked LEFT JOIN stock_copy s ON s.sku = asked.sku GROUP BY asked.sku
    ) now_free WHERE v.sku = now_free.sku AND v.free <> now_free.free;
    RETURN hit;
END $$;


-- The prices of some SKUs changed, or an instant passed at which one begins or ends: brings what holds now up to it.
-- Returns the SKUs whose price of now moved.
CREATE FUNCTION settle_prices(moved text []) RETURNS SETOF text LANGUAGE sql AS $$
    WITH holding AS (
        SELECT sku, currency,
            (array_agg(amount ORDER BY start_time DESC) FILTER (WHERE NOT reduced))[1] AS regular,
            (array_agg(amount ORDER BY start_time DESC) FILTER (WHERE reduced))[1] AS reduction
        FROM prices
        WHERE sku = ANY(moved) AND start_time <= clock_timestamp() AND end_time > clock_timestamp()
        GROUP BY sku, currency
    ), wanted AS (
        -- A reduction of no price is no price, and one that costs more than the price is none.
        SELECT sku, currency, least(regular, reduction) AS amount,
            CASE WHEN reduction < regular THEN regular END AS regular_amount
        FROM holding WHERE regular IS NOT NULL
    ), gone AS (
        DELETE FROM current_prices c WHERE c.sku = ANY(moved)
            AND NOT EXISTS (SELECT FROM wanted w WHERE w.sku = c.sku AND w.currency = c.currency)
        RETURNING c.sku
    ), moved_on AS (
        INSERT INTO current_prices AS c (sku, currency, amount, regular_amount) SELECT * FROM wanted
        ON CONFLICT (sku, currency) DO UPDATE SET amount = excluded.amount, regular_amount = excluded.regular_amount
        WHERE (c.amount, c.regular_amount) IS DISTINCT FROM (excluded.amount, excluded.regular_amount)
        RETURNING c.sku
    )
    SELECT sku FROM gone UNION SELECT sku FROM moved_on
$$;

-- A price as it stands in the history.
CREATE FUNCTION price_note(amount numeric, start_time timestamptz, end_time timestamptz) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT amount::text
        || CASE WHEN start_time > '-infinity'
            THEN ' from ' || to_char(start_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') ELSE '' END
        || CASE WHEN end_time < 'infinity'
            THEN ' until ' || to_char(end_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') ELSE '' END
$$;

-- Pictures of a product from a feed's links; what was said of a picture that stays is kept.
CREATE FUNCTION pictures(links text, known jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('uri', link, 'alternative_text', coalesce(
        (SELECT one ->> 'alternative_text' FROM jsonb_array_elements(known) AS one WHERE one ->> 'uri' = link LIMIT 1), ''
    )) ORDER BY nth), '[]')
    FROM string_to_table(links, ',') WITH ORDINALITY AS told (link, nth) WHERE link <> ''
$$;
