-- What a customer looks at. Its texts are those of its variant with the lowest SKU, so that they do not depend on the order
-- in which a feed brings its rows.
CREATE TABLE products (
    product_id text COLLATE "C" PRIMARY KEY,
    title text NOT NULL DEFAULT '',
    description text NOT NULL DEFAULT '',
    brand text NOT NULL DEFAULT '',
    -- From the root, each step followed by " > ": all below a category begin with it.
    category text COLLATE "C" NOT NULL DEFAULT '',
    -- Whether a variant is sellable. Kept here so that a page of the window is read from one index.
    listed boolean NOT NULL DEFAULT false,
    -- Counts the changes of `listed`.
    version bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 90);
CREATE INDEX products_listed ON products (product_id) WHERE listed;
CREATE INDEX products_listed_brand ON products (brand, product_id) WHERE listed;
CREATE INDEX products_listed_category ON products (category, product_id) WHERE listed;

-- One row of the feed: what is put into a cart.
CREATE TABLE variants (
    sku text COLLATE "C" PRIMARY KEY,
    product_id text COLLATE "C" NOT NULL REFERENCES products,
    title text NOT NULL,
    description text NOT NULL,
    brand text NOT NULL,
    category text COLLATE "C" NOT NULL,
    price numeric NOT NULL CHECK (price > 0),
    currency text NOT NULL,
    color text NOT NULL,
    size text NOT NULL,
    -- Sorts as the sizes do.
    size_order text COLLATE "C" NOT NULL,
    size_system text NOT NULL,
    gender text NOT NULL,
    age_group text NOT NULL,
    gtin text NOT NULL,
    image_link text NOT NULL,
    -- Sum over the locations of stock_copy.
    free bigint NOT NULL DEFAULT 0 CHECK (free >= 0),
    -- A column of its own, so that a change of `free` that leaves it as it is touches no index.
    sellable boolean NOT NULL GENERATED ALWAYS AS (free > 0) STORED
) WITH (fillfactor = 85);
CREATE INDEX variants_of_product ON variants (product_id);
CREATE INDEX variants_alike ON variants (size, category, gender, currency, price, sku) WHERE sellable;
CREATE INDEX variants_near ON variants (category, currency, price, sku) WHERE sellable;

-- Inventory's stock as it was last heard, also of SKUs that no feed has brought yet.
CREATE TABLE stock_copy (
    sku text COLLATE "C" NOT NULL,
    location text COLLATE "C" NOT NULL,
    version bigint NOT NULL CHECK (version >= 0),
    free bigint NOT NULL CHECK (free >= 0),
    heard_time timestamptz NOT NULL,
    PRIMARY KEY (sku, location)
) WITH (fillfactor = 85);

-- Up to when all of a partition of the stock topic was heard, by inventory's clock. A partition that never was has the
-- beginning of time.
CREATE TABLE watermarks (
    partition_number bigint PRIMARY KEY,
    as_of timestamptz NOT NULL,
    -- When that was heard, by our clock.
    heard_time timestamptz NOT NULL
) WITH (fillfactor = 50);

-- How far inventory's clock is ahead of ours, as it was last measured; no row while it never was.
CREATE TABLE inventory_clock (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    ahead interval NOT NULL
);

-- The stock of some SKUs changed: brings their variants and products up to it. Returns the products that came into the
-- window or left it. A function, since each of its statements sees what was committed while it waited for the locks:
-- two that heard of different locations of one SKU must not both add up without the other.
CREATE FUNCTION refresh_window(moved text []) RETURNS TABLE (
    product_id text, version bigint, listed boolean, change_time timestamptz
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    hit text[];
BEGIN
    SELECT array_agg(DISTINCT product_id) INTO hit FROM variants WHERE sku = ANY(moved);
    IF hit IS NULL THEN
        RETURN;
    END IF;
    PERFORM FROM products WHERE product_id = ANY(hit) ORDER BY product_id FOR NO KEY UPDATE;
    UPDATE variants v SET free = now_free.free FROM (
        SELECT asked.sku, coalesce(sum(s.free), 0)::bigint AS free
        FROM (SELECT DISTINCT unnest(moved) AS sku) asked LEFT JOIN stock_copy s ON s.sku = asked.sku GROUP BY asked.sku
    ) now_free WHERE v.sku = now_free.sku AND v.free <> now_free.free;
    RETURN QUERY SELECT * FROM refresh_listed(hit);
END $$;

-- The variants of some locked products changed: lists or delists those.
CREATE FUNCTION refresh_listed(hit text []) RETURNS TABLE (
    product_id text, version bigint, listed boolean, change_time timestamptz
) LANGUAGE sql AS $$
    UPDATE products p SET listed = NOT p.listed, version = p.version + 1
    WHERE p.product_id = ANY(hit)
        AND p.listed <> EXISTS (SELECT FROM variants v WHERE v.product_id = p.product_id AND v.sellable)
    RETURNING p.product_id, p.version, p.listed, clock_timestamp()
$$;
